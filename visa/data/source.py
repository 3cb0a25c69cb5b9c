"""The data set in use: the user's own, in one of three layouts, or mini-VisA if none is given."""

import os
import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from visa.data import splits
from visa.data.layouts import root_samples
from visa.data.objects import OBJECTS, SPLIT_TYPES
from visa.data.splits import Sample, description, is_synthetic, present_objects, read_table, select
from visa.errors import VisaError, check_choice
from visa.paths import data_root, existing_folder, is_address, locked, mirror_of, scratch_folder, visa_root
from visa.provenance import digest, folder_fingerprint

VISA, MINI_VISA = "VisA", "mini-VisA"
Annotated = list[tuple[Sample, tuple[str, ...]]]  # rows, and the names of each image's defects


@dataclass(frozen=True)
class Source:
    """A root, its name in tables, whether it is synthetic, and the objects present in it.

    The root is in VisA's layout, with split_csv/, or in one of `visa.data.layouts`; its rows have the same form in all.
    `address` is the object storage that the root was copied from, or empty.
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
        raise VisaError(f"object {name!r} is not in {self.root}; present: {', '.join(self.objects)}.")

    def samples(self, split_type: str, object: str = "", split: str = "", label: str = "") -> list[Sample]:
        """Return the rows of a split (1cls, 2cls_highshot, 2cls_fewshot) of the present objects; "" stands for all.

        See `visa.data.layouts.root_samples` for the splits of roots without split files.
        """
        wanted = {"object": object, "split": split, "label": label}
        rows = [s for s in root_samples(self.root, split_type) if s.object in self.objects]
        return select(rows, **{field: value for field, value in wanted.items() if value})

    def defects(self, object: str) -> dict[str, tuple[str, ...]]:
        """Return the names of the defect classes of each anomalous image of an object, by the image's path.

        They come from image_anno.csv, else from MVTec-AD's folders; without either there are none.
        """
        if (self.root / object / "image_anno.csv").is_file():
            return {row.image: names for row, names in annotations(self.root, object, ("image", "label")) if names}
        places = {s.image: s.image.split("/") for s in self.samples("1cls", object, label="anomaly")}
        return {image: (parts[-2],) for image, parts in places.items() if parts[-3:-2] == ["test"]}

    def fingerprint(self, *names: str) -> str:
        """Compute a digest that changes with the objects' files and with their rows in the split files."""
        wanted = names or self.objects
        files = [file for t in SPLIT_TYPES if (file := splits.split_file(self.root, t)).is_file()]
        rows = [_rows_digests(f, f.stat().st_mtime_ns).get(name) for f in files for name in wanted]
        if all((self.root / name / "Data").is_dir() for name in wanted):
            return digest([description(self.root), rows, *(folder_fingerprint(self.root / name) for name in wanted)])
        samples = {t: [s for s in self.samples(t) if s.object in wanted] for t in SPLIT_TYPES}
        made = [[(s.split, s.image) for s in of_type] for of_type in samples.values() if not files]
        paths = [path for s in samples["1cls"] for path in (s.image, s.mask) if path]
        paths += [anno for name in wanted if (self.root / (anno := f"{name}/image_anno.csv")).is_file()]
        found = [(path, self.root / path) for path in paths]
        facts = [(path, f.stat().st_size, f.stat().st_mtime_ns) if f.is_file() else path for path, f in found]
        return digest([description(self.root), rows, made, facts])


def annotations(root: Path, name: str, columns: Sequence[str] = ("image", "label", "mask")) -> Annotated:
    """Read all rows of an object's image_anno.csv, in order; raises VisaError if it is missing or lacks a column."""
    file = root / name / "image_anno.csv"
    if not file.is_file():
        raise VisaError(f"no annotations at {file}.")
    rows = []
    for row in read_table(file, columns):
        label = row.get("label", "")
        defects = () if label == "normal" else tuple(defect.strip() for defect in label.split(","))
        rows.append((Sample(name, "", "anomaly" if defects else "normal", row["image"], row.get("mask", "")), defects))
    return rows


def open_source(root: str = "", objects: Sequence[str] = ()) -> Source:
    """Open the data set at `root`, or at VISA_ROOT if `root` is empty, or mini-VisA if both are.

    An address (s3://...) is copied to a local folder first (see `mirrored`).
    Mini-VisA's `objects` are rendered at their first use ("all": every one); other data sets ignore `objects`. The
    data set's name comes from dataset.json in the root; without that file see `dataset_name`.
    Raises VisaError if the folder is missing, in no known layout, or holds none of its objects, or if mini-VisA lacks
    one of `objects`.
    """
    named = root or os.environ.get("VISA_ROOT", "")
    address = named if is_address(named) else ""
    folder = mirrored(address) if address else existing_folder(root) if root else visa_root()
    if folder is None and root:
        raise VisaError(
            f"visa_root is {root!r}, which is not a folder: give a folder in one of the layouts of the book's page on "
            "your own data, or leave it empty."
        )
    folder = folder or _mini_visa(objects)
    samples = root_samples(folder, "1cls")
    objects = tuple(present_objects(folder, select(samples, label="normal")))
    if not objects:
        named = ", ".join(dict.fromkeys(s.object for s in samples)) or "its folders good/ are empty"
        raise VisaError(f"{folder} holds none of its objects' normal images ({named}): check that it is complete.")
    return Source(folder, dataset_name(folder, objects), is_synthetic(folder), objects, address)


def default_objects() -> Sequence[str]:
    """Return the default objects of a run: four of mini-VisA's, or ("all",) if VISA_ROOT names a data set."""
    if visa_root() is not None:
        return ("all",)
    from visa.mini import DEFAULT_OBJECTS

    return DEFAULT_OBJECTS


def dataset_name(root: Path, objects: tuple[str, ...]) -> str:
    """Return a data set's name: from dataset.json, else VisA for VisA's layout and objects, else the folder's name.

    Raises VisaError if dataset.json gives an unusable name, or calls other data VisA or mini-VisA.
    """
    official = (root / "split_csv").is_dir() and (is_synthetic(root) or all(name in OBJECTS for name in objects))
    name = description(root).get("name")
    taken = (VISA.lower(), MINI_VISA.lower())
    if name is None:
        folder = re.sub(r"[^\w.+ -]", "-", root.name).lstrip(".+ -") or "data"
        return VISA if official else f"{folder}-own" if folder.lower() in taken else folder
    plain = isinstance(name, str) and re.fullmatch(r"\w[\w.+ -]*", name)
    if not plain or (str(name).lower() in taken and not official):
        raise VisaError(
            f"{root / 'dataset.json'} calls the data {name!r}: use letters, digits, '.', '+', '-', '_' and spaces, and "
            "another name than VisA or mini-VisA."
        )
    return str(name)


def mirrored(address: str) -> Path:
    """Copy the folder at an address, with its modification times, into data/mirror/ once, and return the copy.

    The copy appears only when it is complete; delete it to copy the folder again. Raises VisaError if no files
    are at the address, if it cannot be reached, or if a file arrives incomplete.
    """
    target = mirror_of(address)
    if target.is_dir():
        return target
    with locked(target.parent), scratch_folder(target) as scratch:
        if target.is_dir():  # another process has copied it meanwhile
            return target
        try:
            _copy(address.rstrip("/"), scratch / "root")
        except Exception as error:  # each kind of storage raises errors of its own
            if isinstance(error, VisaError):
                raise
            reason = f"{type(error).__name__}: {' '.join(str(error).split()).rstrip('.')}"
            raise VisaError(
                f"{address} cannot be reached ({reason}): check address, credentials and network, and that the package "
                "for this kind of storage (s3fs, gcsfs, ...) is installed."
            ) from error
        (scratch / "root").replace(target)
    return target


def _copy(address: str, folder: Path) -> None:
    """Copy every file below an address to a new folder; raises VisaError if there is none or one is incomplete."""
    import fsspec

    files, base = fsspec.url_to_fs(address)
    listed = {path: about for path, about in files.find(base, detail=True).items() if about["size"] is not None}
    local = {path: folder / path.removeprefix(base).lstrip("/") for path in listed if not path.endswith("/")}
    if not local:
        raise VisaError(f"there is nothing at {address}: check the address.")
    if unsafe := [path for path in local if ".." in PurePosixPath(path).parts]:
        raise VisaError(f"{address} holds a file called {unsafe[0]!r}, which leads out of the folder.")
    for file in local.values():
        file.parent.mkdir(parents=True, exist_ok=True)
    files.get(list(local), [str(file) for file in local.values()])
    for path, file in local.items():
        if not file.is_file() or file.stat().st_size != listed[path]["size"]:
            raise VisaError(f"{path} did not arrive whole from {address}: run the same command again.")
        changed = listed[path].get("LastModified") or listed[path].get("mtime") or 0  # all copies get the same times
        seconds = float(changed.timestamp() if hasattr(changed, "timestamp") else changed)
        os.utime(file, (seconds, seconds))


@lru_cache(maxsize=16)
def _rows_digests(file: Path, modified: int) -> dict[str, str]:
    """Compute the digest of each object's rows in a split file; `modified`, its modification time, keys the cache."""
    rows: dict[str, list[tuple[str, ...]]] = {}
    for sample in splits.read_split(file):
        rows.setdefault(sample.object, []).append(astuple(sample))
    return {name: digest(own) for name, own in rows.items()}


def _mini_visa(objects: Sequence[str]) -> Path:
    from visa.mini import DEFAULT_OBJECTS, MODULES, present, write_mini_visa  # imports OpenCV, needed to render

    folder = data_root() / "mini-visa"
    try:
        names = tuple(MODULES) if "all" in objects else objects or present(folder) or DEFAULT_OBJECTS
        return write_mini_visa(folder, names, progress=True)
    except ValueError as error:
        raise VisaError(str(error)) from error
