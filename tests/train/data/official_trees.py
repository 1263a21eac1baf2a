"""Small data folders in the exact formats that the data sets are published in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from train.data.deepfashion import BIASED_PAIRS


def names(text: str) -> list[str]:
    return text.split(",")


THINGS = names(
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,"
    "street sign,stop sign,parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,"
    "giraffe,hat,backpack,umbrella,shoe,eye glasses,handbag,tie,suitcase,frisbee,skis,snowboard,"
    "sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,plate,"
    "wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,"
    "pizza,donut,cake,chair,couch,potted plant,bed,mirror,dining table,window,desk,toilet,door,tv,"
    "laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,refrigerator,blender,book,"
    "clock,vase,scissors,teddy bear,hair drier,toothbrush,hair brush"
)
STUFF = names(
    "banner,blanket,branch,bridge,building-other,bush,cabinet,cage,cardboard,carpet,ceiling-other,"
    "ceiling-tile,cloth,clothes,clouds,counter,cupboard,curtain,desk-stuff,dirt,door-stuff,fence,"
    "floor-marble,floor-other,floor-stone,floor-tile,floor-wood,flower,fog,food-other,fruit,"
    "furniture-other,grass,gravel,ground-other,hill,house,leaves,light,mat,metal,mirror-stuff,moss,"
    "mountain,mud,napkin,net,paper,pavement,pillow,plant-other,plastic,platform,playingfield,"
    "railing,railroad,river,road,rock,roof,rug,salad,sand,sea,shelf,sky-other,skyscraper,snow,"
    "solid-other,stairs,stone,straw,structural-other,table,tent,textile-other,towel,tree,vegetable,"
    "wall-brick,wall-concrete,wall-other,wall-panel,wall-stone,wall-tile,wall-wood,water-other,"
    "waterdrops,window-blind,window-other,wood"
)
CONCEPTS = names(
    "airport,animal,beach,bear,birds,boats,book,bridge,buildings,cars,castle,cat,cityscape,clouds,"
    "computer,coral,cow,dancing,dog,earthquake,elk,fire,fish,flags,flowers,food,fox,frost,garden,"
    "glacier,grass,harbor,horses,house,lake,leaf,map,military,moon,mountain,nighttime,ocean,person,"
    "plane,plants,police,protest,railroad,rainbow,reflection,road,rocks,running,sand,sign,sky,snow,"
    "soccer,sports,statue,street,sun,sunset,surf,swimmers,tattoo,temple,tiger,tower,town,toy,train,"
    "tree,valley,vehicle,water,waterfall,wedding,whales,window,zebra"
)
# COCO's category ids leave out what COCO-Stuff calls dropped.
NEVER_ANNOTATED = names(
    "street sign,hat,shoe,eye glasses,plate,mirror,window,desk,door,blender,hair brush"
)
COCO_CATEGORIES = [
    {"id": i + 1, "name": name} for i, name in enumerate(THINGS) if name not in NEVER_ANNOTATED
]


def draw(path: Path, colors: Sequence[bool], seed: int) -> None:
    """A picture with a square for each colour that is there: red, green, blue."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    image = rng.integers(90, 130, (80, 96, 3), np.uint8)
    for channel in np.flatnonzero(colors):
        y, x = rng.integers(0, 50, 2)
        image[y : y + 28, x : x + 28] = np.eye(3, dtype=np.uint8)[channel][::-1] * 255
    assert cv2.imwrite(str(path), image)


def random_colors(count: int, seed: int) -> list[list[bool]]:
    return (np.random.default_rng(seed).random((count, 3)) < 0.5).tolist()


def write_coco(root: Path, year: int = 2014, sizes: Sequence[int] = (16, 8)) -> Path:
    """Red is a person, green a dog, blue a zebra; some pictures have none of them."""
    ids = (1, 18, 24)
    (root / "annotations").mkdir(parents=True)
    for name, size in zip((f"train{year}", f"val{year}"), sizes, strict=True):
        prefix = f"COCO_{name}_" if year == 2014 else ""
        images, annotations = [], []
        for i, colors in enumerate(random_colors(size, seed=len(name))):
            key = 1000 * len(name) + i
            images.append({"id": key, "file_name": f"{prefix}{key:012d}.jpg", "license": 1})
            draw(root / name / str(images[-1]["file_name"]), colors, key)
            annotations += [
                {"id": 9 * key + c, "image_id": key, "category_id": ids[c], "iscrowd": 0}
                for c in np.flatnonzero(colors).tolist()
            ]
        record = {"images": images, "annotations": annotations, "categories": COCO_CATEGORIES}
        (root / "annotations" / f"instances_{name}.json").write_text(json.dumps(record))
    return root


def write_coco_stuff(root: Path, sizes: Sequence[int] = (20, 10)) -> Path:
    """Red is a person, green skis, blue a road; pixel maps of train2014 lie in both 2017 folders."""
    values = [[*THINGS, *STUFF].index(name) for name in ("person", "skis", "road")]
    for name, size in zip(("train2014", "val2014"), sizes, strict=True):
        for i, colors in enumerate(random_colors(size, seed=len(name))):
            key = 1000 * len(name) + i
            draw(root / name / f"COCO_{name}_{key:012d}.jpg", colors, key)
            pixels = np.full((12, 16), 255, np.uint8)
            for c in np.flatnonzero(colors).tolist():
                pixels[3 * c : 3 * c + 2] = values[c]
            folder = root / "stuffthingmaps" / ("train2017" if i % 2 else "val2017")
            folder.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(folder / f"{key:012d}.png"), pixels)
    lines = [f"{k}: {name}" for k, name in enumerate(["unlabeled", *THINGS, *STUFF])]
    (root / "labels.txt").write_text("\n".join(lines) + "\n")
    return root


def deepfashion_attributes() -> list[str]:
    named = sorted({name for pair in BIASED_PAIRS for name in pair})
    return [*named, *(f"pattern {k}" for k in range(300 - len(named)))]


def write_deepfashion(root: Path, sizes: Sequence[int] = (16, 6, 8)) -> Path:
    """Red is skinny, green is ankle, blue is wash; -1 and 0 stand for absent."""
    attributes = deepfashion_attributes()
    marked = [attributes.index(name) for name in ("skinny", "ankle", "wash")]
    cloth = [f"{name:<30}{1 + len(name) % 5}" for name in attributes]
    values, partition = [], []
    for split, size in zip(("train", "val", "test"), sizes, strict=True):
        for i, colors in enumerate(random_colors(size, seed=len(split))):
            file = f"img/{split}_Skinny_Jeans/img_{i:08d}.jpg"
            draw(root / "Img" / file, colors, 100 * len(split) + i)
            row = np.full(len(attributes), -1)
            row[i:100] = 0
            row[[*np.array(marked)[np.array(colors)]]] = 1
            values.append(f"{file:<60}" + " ".join(f"{v:2d}" for v in row))
            partition.append(f"{file:<60}{split}")
    for path, heading, lines in (
        ("Anno_coarse/list_attr_cloth.txt", "attribute_name  attribute_type", cloth),
        ("Anno_coarse/list_attr_img.txt", "image_name  attribute_labels", values),
        ("Eval/list_eval_partition.txt", "image_name  evaluation_status", partition),
    ):
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_text("\n".join([str(len(lines)), heading, *lines]) + "\n")
    return root


def write_nus_wide(root: Path, sizes: Sequence[int] = (20, 10)) -> Path:
    """Red is a person, green a dog, blue a zebra; pictures of none of them have no concept."""
    marked = [CONCEPTS.index(name) for name in ("person", "dog", "zebra")]
    labels = root / "Groundtruth" / "TrainTestLabels"
    labels.mkdir(parents=True)
    (root / "ImageList").mkdir()
    for part, size in zip(("Train", "Test"), sizes, strict=True):
        listed, present = [], np.zeros((size, len(CONCEPTS)), int)
        for i, colors in enumerate(random_colors(size, seed=len(part))):
            listed.append(f"actor\\{i:04d}_{part}.jpg")
            draw(root / "Flickr" / "actor" / f"{i:04d}_{part}.jpg", colors, 100 * len(part) + i)
            present[i, marked] = colors
        (root / "ImageList" / f"{part}Imagelist.txt").write_text("\r\n".join(listed) + "\r\n")
        for concept, column in zip(CONCEPTS, present.T, strict=True):
            text = "".join(f"{value}\n" for value in column)
            (labels / f"Labels_{concept}_{part}.txt").write_text(text)
    return root
