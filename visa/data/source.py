"""The data set at hand: the user's VisA root, or mini-VisA where there is none."""

from dataclasses import dataclass
from pathlib import Path

from visa.data.objects import OBJECTS
from visa.data.splits import (
    Sample,
    description,
    is_synthetic,
    present_objects,
    read_split,
    read_table,
    select,
    split_file,
)
from visa.data.synthetic.writer import DEFAULT_OBJECTS, write_mini_visa
from visa.errors import VisaError, check_choice
from visa.paths import data_root, visa_root
from visa.provenance import digest, folder_fingerprint


@dataclass(frozen=True)
class Source:
    """A VisA root, its name in tables, whether it is synthetic, and the objects present in it."""

    root: Path
    name: str
    synthetic: bool
    objects: tuple[str, ...]

    def check_object(self, name: str) -> str:
        """Return `name` if it is present; otherwise raise VisaError that lists the choices."""
        if name in self.objects:
            return name
        if name not in OBJECTS:
            check_choice("object", name, self.objects)
        where = "mini-VisA, which stands in for VisA: set VISA_ROOT" if self.synthetic else f"{self.root}"
        raise VisaError(f"object {name!r} is not in {where}; present: {', '.join(self.objects)}.")

    def samples(self, split_type: str, **wanted: str) -> list[Sample]:
        """The rows of a split (1cls, 2cls_highshot, 2cls_fewshot) whose fields equal `wanted`, as `select` has it."""
        return select(read_split(split_file(self.root, split_type)), **wanted)

    def defects(self, object: str) -> dict[str, tuple[str, ...]]:
        """Names of the defect classes of each anomalous image of an object, by the image's path."""
        rows = read_table(self.root / object / "image_anno.csv", ("image", "label"))
        labels = {str(row["image"]): str(row["label"]) for row in rows}
        return {image: tuple(label.split(",")) for image, label in labels.items() if label != "normal"}

    def fingerprint(self, *names: str) -> str:
        """Digest of the objects' files and of the split files; changes when the data do."""
        folders = [self.root / name for name in (names or self.objects)]
        return digest([description(self.root), *(folder_fingerprint(f) for f in (*folders, self.root / "split_csv"))])


def open_source(root: str = "") -> Source:
    """The data set at `root`, else at VISA_ROOT, else mini-VisA, which is rendered at its first use.

    Raises VisaError if the folder is absent, has no split files, or holds none of their objects.
    """
    folder = _named(root) if root else visa_root()
    if folder is None:
        folder = write_mini_visa(data_root() / "mini-visa", DEFAULT_OBJECTS, progress=True)
    objects = tuple(present_objects(folder))
    if not objects:
        raise VisaError(f"{folder} holds none of VisA's objects: it is the folder with candle/, ..., split_csv/.")
    about = description(folder)
    return Source(folder, str(about.get("name", "VisA")), is_synthetic(folder), objects)


def _named(root: str) -> Path:
    folder = Path(root).expanduser().resolve()
    if not folder.is_dir():
        raise VisaError(
            f"visa_root is {root!r}, which is no folder: give the folder that holds split_csv/, or leave it."
        )
    return folder
