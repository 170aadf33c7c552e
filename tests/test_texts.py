"""A text is one in the box or a file of the user's; what is wrong with it is said in a sentence."""

import pytest

from rdlib.files import END
from rdlib.models.hub import EMBEDDED
from rdlib.network.texts import load_text, load_tokenizer, token_counts


def test_a_file_of_the_users_stands_for_a_text_in_the_box(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text(f"One story.\n{END}\nAnother, with an é.\n{END}\n", encoding="utf-8")
    assert load_text(file) == ["One story.", "Another, with an é."]
    table = token_counts([str(file), "evaluation"], load_tokenizer(EMBEDDED))
    assert list(table.index) == ["mine.txt", "evaluation"]
    assert table.loc["mine.txt", "documents"] == 2 and (table["characters/token"] > 1).all()


@pytest.mark.parametrize(
    ("data", "sentence"), [(None, "no text"), (b"", "holds no text"), (b"\xff\xfe\xff", "not UTF-8")]
)
def test_a_bad_text_is_named(tmp_path, data, sentence):
    file = tmp_path / "bad.txt"
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(ValueError, match=sentence) as error:
        load_text(file)
    assert "bad.txt" in str(error.value)


def test_a_model_without_a_tokenizer_is_named(tmp_path):
    with pytest.raises(ValueError, match=tmp_path.name):
        load_tokenizer(tmp_path)
