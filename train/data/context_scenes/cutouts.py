"""Photographs cut out, before photographs: another source of what scenes are composed of.

Objects are stamps of Debian's tuxpaint-stamps-default, backgrounds those of its wallpapers and of two
wheels. Each world holds out other objects and other backgrounds, as its seed says.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cmlr_edge.errors import DataError
from train.data.context_scenes.assets import (
    GIMP,
    LOMIRI,
    MATE,
    TUX,
    Assets,
    Image,
    decode_sprite,
    read_backgrounds,
    save_arrays,
    unpacked_packages,
)

KNOWN, HELD_OUT = "known", "held out"
# The last part has the objects of the training: how much of a loss is due to new ones.
FAMILIES = dict.fromkeys(("train", "val", "cross"), (KNOWN,)) | dict.fromkeys(
    ("iid", "do"), (HELD_OUT,)
)
_HELD_OUT_SHARE = 3  # one object in three, at least one
COUNTS = {"train": 1500, "val": 300, "iid": 400, "do": 1000, "cross": 300}
_STAMPS = "tuxpaint-stamps-default"
# label -> folders (with a slash at the end) and the stamps in them, photographs alone; in the order of
# the graph's roles: eight effects, eight causes, eight neutral ones.
_OBJECTS = {
    "coin": "symbols/money/euro/coins/ 001 002 005 010 020 050 100 200 "
    "symbols/money/japanese/ yen001 yen005 yen010 yen050 yen100 yen500 "
    "symbols/money/canadian/coins/ 005nickel 010dime 025quarter 100loonie 200toonie "
    "symbols/money/us/coins/ 001penny 005nickel 010dime 025quarter 100sacagawea",
    "apple": "food/fruit/ apple_fuji apple_granny_smith apple_green apple_red apple_sierra_beauty",
    "citrus": "food/fruit/ lemon mandarine orange orange_seville sliced_lime sliced_orange",
    "ball": "sports/ australian_rules_football basketball cricketball football soccer tennis_ball",
    "vessel": "household/ kettle household/dishes/ glass mug pitcher_small teapot",
    "mushroom": "plants/mushrooms/ cep-1 cep-2 cep food/vegetables/ mushroom",
    "insect": "animals/insects/ fly grasshopper hornet hoverfly mantis xanthia",
    "berry": "food/fruit/ Cherry_Stella Strawberry2 grapes raspberry strawberry",
    "cattle": "animals/mammals/bovines/ bison bull cow cow_white gnu-baby gnu-stand yak zebu",
    "deer": "animals/mammals/bovines/ indian_blackbuck animals/mammals/deer/ caribou deer doe wapiti",
    "horse": "animals/mammals/equines/ donkey donkey_eating horse zebra",
    "big cat": "animals/mammals/cats/ lion lion-2 tiger tiger_sumatran",
    "sheep": "animals/mammals/bovines/ goat mountaingoat ram sheep sheep_lamb",
    "car": "vehicles/auto/ beetle sedan sportscar2 truck vehicles/emergency/ sedan_police",
    "lorry": "vehicles/ garbagetruck vehicles/construction/ dumper vehicles/emergency/ firetruck "
    "vehicles/masstransit/ green_korean_bus",
    "strings": "hobbies/music/string/ cello guitar2 guitar_classical guitar_electric "
    "guitar_electric_bass violin",
    "songbird": "animals/birds/ adelaide-rosella blackbird crow cuckoo lark magpie pigeon "
    "rainbow-lorikeet",
    "wader": "animals/birds/ crowned_crane heron_greatblue nandou ostrich pelican pink_flamingo",
    "fowl": "animals/birds/ chicken_profile guineafowl helmeted_guineafowl hen rooster turkey",
    "fish": "animals/fish/ bluegroper butterflyfish clownfish coraltrout dolphinfish moonwrasse "
    "stripedfish",
    "pig": "animals/mammals/ pig pig_golden pig_golden2 wildboar",
    "rodent": "animals/mammals/rodents/ beaver capybara marmot mouse rat squirrel",
    "tool": "household/tools/ hammer mallet_metal plyers saw spade wrench wrench_adjustable "
    "wrench_plumbers",
    "sea mammal": "animals/mammals/aquatic/ dolphin orca otter sea_lion whale",
    # Things without a label, so that an object alone does not give one away.
    "": "animals/amphibians/ frog frog-1 animals/lizards/ iguana animals/fish/ lobster seahorse "
    "animals/mammals/ badger elephant ferret giraffe hippopotamus rhino_black "
    "animals/mammals/apes/ chimp gorilla animals/mammals/bears/ bear european-bear "
    "animals/mammals/camel/ camel dromedary animals/marsupials/ kangaroo koala wombat "
    "food/vegetables/ broccoli chilepepper corn garlic onion potato pumpkin_small yellowpepper "
    "hobbies/ binoculars camera_35mm hobbies/music/percussion/ drumkit medical/ stethoscope "
    "household/ Lightbulb garbagecan rubberduck toilet plants/trees/ pinecone seasonal/ candle "
    "sports/ trophy_cup town/ usps_mailbox vehicles/flight/ balloon360 vehicles/ wheel_tractor",
}  # fmt: skip
_SKIMAGE = "scikit-image==0.26.0:skimage/data/"
# Five per context; a world takes three for training, one for validation, one for the tests.
_BACKGROUNDS = {
    "meadow": (
        MATE + "GreenMeadow.jpg", MATE + "Dune.jpg", LOMIRI + "aitzgorri_by_Aitzol_Berasategi.jpg",
        LOMIRI + "picosdeeuropa_by_Aitzol_Berasategi.jpg",
        LOMIRI + "seeding_by_Clements_Engelhardt.jpg",
    ),
    "leaves": (
        MATE + "Blinds.jpg", MATE + "RainDrops.jpg", TUX + "corn_maze.jpg",
        TUX + "sun_behind_leaves.jpg", LOMIRI + "Dragonfly_by_Bolly.jpg",
    ),
    "forest": (
        TUX + "redwoods_above.jpg", TUX + "trees_above.jpg", TUX + "mossy_log.jpg",
        TUX + "trees_at_dusk.jpg", LOMIRI + "life_by_Aitzol_Berasategi.jpg",
    ),
    "wood": (
        TUX + "burnt_bark.jpg", TUX + "mossy_bark.jpg", MATE + "Wood.jpg",
        GIMP + "Wood/bark.pat", GIMP + "Wood/wood5.pat",
    ),
    "stone": (
        TUX + "rocks.jpg", TUX + "mudstone.jpg", TUX + "cliff.jpg", _SKIMAGE + "gravel.png",
        GIMP + "Stone/rock.pat",
    ),
    "water": (
        TUX + "ocean_waves.jpg", TUX + "ocean_splash.jpg", TUX + "jellyfish.jpg",
        MATE + "Aqua.jpg", GIMP + "Water/pool.pat",
    ),
    "sky": (
        TUX + "sun_behind_clouds.jpg", TUX + "lighthouse.jpg", MATE + "Storm.jpg",
        LOMIRI + "Bridge_by_Sander_Klootwijk.jpg", LOMIRI + "sunset_by_Aitzol_Berasategi.jpg",
    ),
    "blossoms": (
        MATE + "FreshFlower.jpg", MATE + "Garden.jpg", MATE + "TwoWings.jpg",
        MATE + "YellowFlower.jpg", "scikit-learn==1.9.1:sklearn/datasets/images/flower.jpg",
    ),
}  # fmt: skip
LABELS, CONTEXTS = tuple(label for label in _OBJECTS if label), tuple(_BACKGROUNDS)


def load_cutouts(folder: Path, seed: int) -> Assets:
    """Read the cut-outs and photos from `folder`, and fetch them first where they are not there.

    Args:
        folder: Kept for the next time: `cutouts.npz` and `photos.npz`.
        seed: Of the world. Objects and photos are shuffled by it before some are held out.

    Raises:
        DependencyError: apt-get or dpkg is missing.
        DataError: A package has not what it should.
    """
    objects, photos = folder / "cutouts.npz", folder / "photos.npz"
    if not objects.is_file():
        with unpacked_packages([_STAMPS]) as unpacked:
            save_arrays(objects, _read_stamps(unpacked / _STAMPS / "usr/share/tuxpaint/stamps"))
    if not photos.is_file():
        names = [name for files in _BACKGROUNDS.values() for name in files]
        with unpacked_packages({name.split(":")[0] for name in names}) as unpacked:
            save_arrays(photos, read_backgrounds(_BACKGROUNDS, unpacked))
    sprites: dict[str, dict[str, list[Image]]] = {KNOWN: {}, HELD_OUT: {}}
    for label, found in _read_groups(objects, seed).items():
        held_out = max(1, len(found) // _HELD_OUT_SHARE)
        sprites[HELD_OUT][label], sprites[KNOWN][label] = found[:held_out], found[held_out:]
    return Assets(LABELS, CONTEXTS, sprites, _read_groups(photos, seed))


def _read_groups(path: Path, seed: int) -> dict[str, list[Image]]:
    """Arrays named GROUP|NAME, by group, each group in an order of the seed's."""
    groups: dict[str, list[Image]] = {}
    with np.load(path) as arrays:
        for key in sorted(arrays):
            groups.setdefault(key.split("|")[0], []).append(arrays[key])
    rng = np.random.default_rng((seed, 0xC07))
    return {name: [found[i] for i in rng.permutation(len(found))] for name, found in groups.items()}


def _read_stamps(folder: Path) -> dict[str, Image]:
    read: dict[str, Image] = {}
    for label, names in _OBJECTS.items():
        inside = folder
        for name in names.split():
            if name.endswith("/"):
                inside = folder / name
                continue
            path = inside / f"{name}.png"
            if not path.is_file():
                raise DataError(f"{_STAMPS} has no {path.name}: another release than Debian 12's")
            stamp = decode_sprite(path.read_bytes(), svg=False)
            if stamp is None:
                raise DataError(f"the stamp {path.name} has no transparent background")
            read[f"{label}|{inside.relative_to(folder)}/{name}"] = stamp
    return read
