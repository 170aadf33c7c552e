"""Where a reader starts a notebook without installing anything: services that read a public repository."""

from urllib.parse import quote

REPOSITORY = ""  # the one setting: owner/name on GitHub; where it is empty, pages have no such links
SERVICES = {
    "GitHub": "https://github.com/{repository}/blob/HEAD/notebooks/{name}.ipynb",
    "Binder": "https://mybinder.org/v2/gh/{repository}/HEAD?labpath=notebooks/{name}.ipynb",
    "Colab": "https://colab.research.google.com/github/{repository}/blob/HEAD/notebooks/{name}.ipynb",
}


def launch_links(notebook: str, repository: str | None = None) -> dict[str, str]:
    """Name of each service → address of a notebook there; nothing where no repository is set.

    >>> launch_links("02_scalar_rd", "owner/name")["Colab"]
    'https://colab.research.google.com/github/owner/name/blob/HEAD/notebooks/02_scalar_rd.ipynb'
    """
    place = REPOSITORY if repository is None else repository
    known = {"repository": quote(place), "name": quote(notebook)}
    return {service: address.format(**known) for service, address in SERVICES.items()} if place else {}
