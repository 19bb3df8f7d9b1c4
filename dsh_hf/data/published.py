"""What was published of Sketchy and TU-Berlin: their classes, and how many pictures there are."""

from collections.abc import Iterable
from dataclasses import dataclass

from dsh_hf.data.spelling import spelling


@dataclass(frozen=True)
class PublishedSet:
    """A data set as its authors describe it.

    Attributes:
        title: what people call it.
        classes: their names, as the folders of the sketches have them.
        pictures: for each domain the published total; where two figures circulate, both.
        per_class: for each domain with the same number in every class, that number.
        terms: why its pictures are not ours to hand on.
    """

    title: str
    classes: tuple[str, ...]
    pictures: dict[str, tuple[int, ...]]
    per_class: dict[str, int]
    terms: str

    def share_of(self, names: Iterable[str]) -> float:
        """Give the share of some class names that are names of this set, 0 where there are none."""
        known = {spelling(name) for name in self.classes}
        found = [spelling(name) in known for name in names]
        return sum(found) / len(found) if found else 0.0


_SKETCHY_CLASSES = """
    airplane, alarm_clock, ant, ape, apple, armor, axe, banana, bat, bear, bee, beetle, bell, bench, bicycle, blimp,
    bread, butterfly, cabin, camel, candle, cannon, car_(sedan), castle, cat, chair, chicken, church, couch, cow,
    crab, crocodilian, cup, deer, dog, dolphin, door, duck, elephant, eyeglasses, fan, fish, flower, frog, geyser,
    giraffe, guitar, hamburger, hammer, harp, hat, hedgehog, helicopter, hermit_crab, horse, hot-air_balloon,
    hotdog, hourglass, jack-o-lantern, jellyfish, kangaroo, knife, lion, lizard, lobster, motorcycle, mouse,
    mushroom, owl, parrot, pear, penguin, piano, pickup_truck, pig, pineapple, pistol, pizza, pretzel, rabbit,
    raccoon, racket, ray, rhinoceros, rifle, rocket, sailboat, saw, saxophone, scissors, scorpion, sea_turtle,
    seagull, seal, shark, sheep, shoe, skyscraper, snail, snake, songbird, spider, spoon, squirrel, starfish,
    strawberry, swan, sword, table, tank, teapot, teddy_bear, tiger, tree, trumpet, turtle, umbrella, violin,
    volcano, wading_bird, wheelchair, windmill, window, wine_bottle, zebra
"""

_TU_BERLIN_CLASSES = """
    airplane, alarm clock, angel, ant, apple, arm, armchair, ashtray, axe, backpack, banana, barn, baseball bat,
    basket, bathtub, bear (animal), bed, bee, beer-mug, bell, bench, bicycle, binoculars, blimp, book, bookshelf,
    boomerang, bottle opener, bowl, brain, bread, bridge, bulldozer, bus, bush, butterfly, cabinet, cactus, cake,
    calculator, camel, camera, candle, cannon, canoe, car (sedan), carrot, castle, cat, cell phone, chair,
    chandelier, church, cigarette, cloud, comb, computer monitor, computer-mouse, couch, cow, crab, crane (machine),
    crocodile, crown, cup, diamond, dog, dolphin, donut, door, door handle, dragon, duck, ear, elephant, envelope,
    eye, eyeglasses, face, fan, feather, fire hydrant, fish, flashlight, floor lamp, flower with stem, flying bird,
    flying saucer, foot, fork, frog, frying-pan, giraffe, grapes, grenade, guitar, hamburger, hammer, hand, harp,
    hat, head, head-phones, hedgehog, helicopter, helmet, horse, hot air balloon, hot-dog, hourglass, house,
    human-skeleton, ice-cream-cone, ipod, kangaroo, key, keyboard, knife, ladder, laptop, leaf, lightbulb, lighter,
    lion, lobster, loudspeaker, mailbox, megaphone, mermaid, microphone, microscope, monkey, moon, mosquito,
    motorbike, mouse (animal), mouth, mug, mushroom, nose, octopus, owl, palm tree, panda, paper clip, parachute,
    parking meter, parrot, pear, pen, penguin, person sitting, person walking, piano, pickup truck, pig, pigeon,
    pineapple, pipe (for smoking), pizza, potted plant, power outlet, present, pretzel, pumpkin, purse, rabbit, race
    car, radio, rainbow, revolver, rifle, rollerblades, rooster, sailboat, santa claus, satellite, satellite dish,
    saxophone, scissors, scorpion, screwdriver, sea turtle, seagull, shark, sheep, ship, shoe, shovel, skateboard,
    skull, skyscraper, snail, snake, snowboard, snowman, socks, space shuttle, speed-boat, spider, sponge bob,
    spoon, squirrel, standing bird, stapler, strawberry, streetlight, submarine, suitcase, sun, suv, swan, sword,
    syringe, t-shirt, table, tablelamp, teacup, teapot, teddy-bear, telephone, tennis-racket, tent, tiger, tire,
    toilet, tomato, tooth, toothbrush, tractor, traffic light, train, tree, trombone, trousers, truck, trumpet, tv,
    umbrella, van, vase, violin, walkie talkie, wheel, wheelbarrow, windmill, wine-bottle, wineglass, wrist-watch,
    zebra
"""


def _names(text: str) -> tuple[str, ...]:
    return tuple(" ".join(text.split()).split(", "))


SKETCHY = PublishedSet(
    title="Sketchy",
    classes=_names(_SKETCHY_CLASSES),
    pictures={"sketches": (75_471, 75_481), "photographs": (12_500,), "extended images": (73_002,)},
    per_class={"photographs": 100},
    terms="its photographs are ImageNet's, whose rights are their photographers', its sketches its authors' to give",
)

TU_BERLIN = PublishedSet(
    title="TU-Berlin",
    classes=_names(_TU_BERLIN_CLASSES),
    pictures={"sketches": (20_000,), "images": (204_489,)},
    per_class={"sketches": 80},
    terms="its images were gathered on the web, their rights are their makers', its sketches its authors' to give",
)
