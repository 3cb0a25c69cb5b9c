"""The data set at hand: the user's own, in one of three layouts, or mini-VisA where there is none."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from visa.data.layouts import folder_defects, root_samples
from visa.data.objects import OBJECTS
from visa.data.splits import Sample, description, is_synthetic, present_objects, read_table, select
from visa.errors import VisaError, check_choice
from visa.paths import data_root, is_address, visa_root
from visa.provenance import digest, folder_fingerprint
from visa.storage import mirrored

VISA, MINI_VISA = "VisA", "mini-VisA"


@dataclass(frozen=True)
class Source:
    """A root, its name in tables, whether it is synthetic, and the objects present in it.

    The root is in VisA's layout, with split_csv/, or in one of `visa.data.layouts`; rows are the same for all.
    `address` is where it was copied from, if it lies on object storage.
    """

    root: Path
    name: str
    synthetic: bool
    objects: tuple[str, ...]
    address: str = ""

    def check_object(self, name: str) -> str:
        """Return `name` if it is present; otherwise raise VisaError that lists the choices."""
        if name in self.objects:
            return name
        if name not in OBJECTS:
            check_choice("object", name, self.objects)
        where = "mini-VisA, which stands in for VisA: set VISA_ROOT" if self.synthetic else f"{self.root}"
        raise VisaError(f"object {name!r} is not in {where}; present: {', '.join(self.objects)}.")

    def samples(self, split_type: str, object: str = "", split: str = "", label: str = "") -> list[Sample]:
        """The rows of a split (1cls, 2cls_highshot, 2cls_fewshot) of the present objects; "" takes all of a field.

        See `visa.data.layouts.root_samples` for the splits of roots without split files.
        """
        wanted = {"object": object, "split": split, "label": label}
        rows = [s for s in root_samples(self.root, split_type) if s.object in self.objects]
        return select(rows, **{field: value for field, value in wanted.items() if value})

    def defects(self, object: str) -> dict[str, tuple[str, ...]]:
        """Names of the defect classes of each anomalous image of an object, by the image's path.

        Read from image_anno.csv, else from MVTec-AD's folders; empty where nobody named the defects.
        """
        file = self.root / object / "image_anno.csv"
        if not file.is_file():
            return folder_defects(self.samples("1cls", object))
        labels = {row["image"]: row.get("label", "") for row in read_table(file, ("image", "label"))}
        return {
            image: tuple(name.strip() for name in label.split(","))
            for image, label in labels.items()
            if label != "normal"
        }

    def fingerprint(self, *names: str) -> str:
        """Digest of the objects' files and of the split files; changes when the data do."""
        wanted = names or self.objects
        if all((self.root / name / "Data").is_dir() for name in wanted):
            folders = [*(self.root / name for name in wanted), self.root / "split_csv"]
            return digest([description(self.root), *(folder_fingerprint(f) for f in folders)])
        rows = [s for s in self.samples("1cls") if s.object in wanted]
        files = [path for s in rows for path in (s.image, s.mask) if path]
        about = {file: (self.root / file).stat() for file in files if (self.root / file).is_file()}
        facts = [(f, about[f].st_size, about[f].st_mtime_ns) if f in about else f for f in files]
        return digest([description(self.root), facts, folder_fingerprint(self.root / "split_csv")])


def open_source(root: str = "") -> Source:
    """The data set at `root`, else at VISA_ROOT, else mini-VisA, which is rendered at its first use.

    An address (s3://...) is copied to a local folder first.

    It is called as dataset.json in the root says; without one, VisA in VisA's layout, otherwise as its folder.
    Raises VisaError if the folder is absent, in no known layout, or holds none of its objects.
    """
    named = root or os.environ.get("VISA_ROOT", "")
    address = named if is_address(named) else ""
    folder = mirrored(address) if address else _named(root) if root else visa_root()
    if folder is None:
        from visa.data.synthetic.writer import DEFAULT_OBJECTS, write_mini_visa  # OpenCV: only where it renders

        folder = write_mini_visa(data_root() / "mini-visa", DEFAULT_OBJECTS, progress=True)
    samples = root_samples(folder, "1cls")
    objects = tuple(present_objects(folder, select(samples, label="normal")))
    if not objects:
        named = ", ".join(dict.fromkeys(s.object for s in samples)) or "its folders good/ are empty"
        raise VisaError(f"{folder} holds none of its objects' normal images ({named}): check that it is complete.")
    return Source(folder, dataset_name(folder, objects), is_synthetic(folder), objects, address)


def dataset_name(root: Path, objects: tuple[str, ...]) -> str:
    """What to call a root's data: the name in dataset.json, VisA if it is VisA's layout and objects, else its folder's.

    Raises VisaError if the name in dataset.json is no plain name, or that of VisA or mini-VisA without being it.
    """
    official = (root / "split_csv").is_dir() and all(name in OBJECTS for name in objects)
    name = description(root).get("name")
    if name is None:
        return VISA if official else _folder_name(root)
    plain = isinstance(name, str) and re.fullmatch(r"\w[\w.+ -]*", name)
    if not plain or (_is_taken(str(name)) and not official):
        raise VisaError(
            f"{root / 'dataset.json'} calls the data {name!r}: use letters, digits, '.', '+', '-', '_' and spaces, and "
            "another name than VisA or mini-VisA."
        )
    return str(name)


def _folder_name(root: Path) -> str:
    name = re.sub(r"[^\w.+ -]", "-", root.name).lstrip(".+ -") or "data"
    return f"{name}-own" if _is_taken(name) else name


def _is_taken(name: str) -> bool:
    return name.lower() in (VISA.lower(), MINI_VISA.lower())


def _named(root: str) -> Path:
    folder = Path(root).expanduser().resolve()
    if not folder.is_dir():
        raise VisaError(
            f"visa_root is {root!r}, which is no folder: give a folder in one of the layouts of the book's page on "
            "your own data, or leave it."
        )
    return folder
