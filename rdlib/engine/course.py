"""What lies ahead of a walk: what is made and run in each layer, what is kept after it, and how long the rest takes."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tqdm import tqdm

from rdlib.engine.bench import KNOWN
from rdlib.engine.branches import Branches, split
from rdlib.engine.variant import Change
from rdlib.models.names import layer_and_group

Kind = tuple[object, ...]  # steps of one kind take about as long in every layer


def course(
    branches: Branches, layers: Iterable[Collection[str]]
) -> Iterator[tuple[Counter[Kind], Counter[str]]]:
    """Of each layer: its steps, and how many branches run on each text when it has been passed.

    Args:
        branches: before the first of the layers.
        layers: the names of their tensors.
    """
    parts = [(False, branches.unchanged)] + [(True, branch.variants) for branch in branches.others]
    for names in layers:
        steps, shared, after = Counter(("run", text) for text in branches.windows), set(), []
        for changed, part in parts:
            tasks = split(part, names)
            own = changed and part[0].sequential and any(changes for changes, _ in tasks)
            steps["run", KNOWN] += own
            for changes, same in tasks:
                steps.update(_made(change) for change in changes if own)
                shared |= frozenset() if own else changes
                after.append((changed or bool(changes), same))
        held = Counter(text for changed, same in after if changed for text in branches.runs_on(same))
        steps.update(map(_made, shared))
        steps.update(("run", text) for text in held.elements())
        parts = after
        yield steps, held


def _made(change: Change) -> Kind:
    name, source = change
    return ("made", source, layer_and_group(name)[1])


@dataclass(frozen=True)
class Progress:
    """How far a walk is.

    Args:
        layer: the next; as many as there are when the outputs are compared.
        layers: of the model.
        spent: seconds, on what was done since the walk began or went on.
        left: seconds that the rest will take, as long as the steps of its kinds took until now.
        disk: folder → bytes that the walk takes there.
    """

    layer: int
    layers: int
    spent: float
    left: float
    disk: dict[str, int]


@dataclass
class _Steps:
    """Of one kind: how many are ahead, how many are done, and what those took."""

    ahead: int
    done: int = 0
    seconds: float = 0.0


class Clock:
    """Takes the time of steps, and reports after each.

    Args:
        ahead: all steps, by kind.
        report: is given the :class:`Progress`; nobody where None.
        layers: of the model.
        disk: folder → bytes.
    """

    def __init__(
        self,
        ahead: Counter[Kind],
        report: Callable[[Progress], object] | None,
        layers: int,
        disk: dict[str, int],
    ):
        self.steps = {kind: _Steps(count) for kind, count in ahead.items()}
        self.report, self.layers, self.disk, self.layer = report, layers, disk, 0
        self.spent, self.done = 0.0, 0

    @contextmanager
    def step(self, *kind: object) -> Iterator[None]:
        """Around a step of a kind."""
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self.spent += seconds
        self.done += 1
        mine = self.steps.setdefault(kind, _Steps(0))
        mine.ahead, mine.done, mine.seconds = mine.ahead - 1, mine.done + 1, mine.seconds + seconds
        if self.report:
            self.report(Progress(self.layer, self.layers, self.spent, self.left, self.disk))

    @property
    def left(self) -> float:
        """Seconds; a kind of which nothing was done yet is taken for the mean of all."""
        usual = self.spent / self.done
        return sum(
            s.ahead * (s.seconds / s.done if s.done else usual) for s in self.steps.values() if s.ahead > 0
        )


def bar(description: str = "walk") -> Callable[[Progress], None]:
    """A progress bar on the screen, in seconds, for ``walk(…, progress=bar())``; it is gone when all is done."""
    shown = tqdm(desc=description, total=0, unit="s", leave=False, delay=5)

    def show(progress: Progress) -> None:
        shown.n, shown.total = round(progress.spent), round(progress.spent + progress.left)
        disk = "".join(f", {size / 1e9:.1f} GB in {folder}" for folder, size in progress.disk.items())
        shown.set_postfix_str(f"layer {progress.layer} of {progress.layers}{disk}")
        if not progress.left:
            shown.close()

    return show
