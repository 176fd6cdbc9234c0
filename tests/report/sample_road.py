"""run.json and pictures.json as a road test writes them, made here from fixed numbers."""

from typing import Any

from sample_report import Run, picture


def row(stage: str, option: str, lost: float | None = None, **fields: Any) -> Run:
    """A row of noise.json; without a loss it cannot run here."""
    if lost is None:
        return {"stage": stage, "option": option, "class": option, "missing": "pip install it"}
    half = fields.pop("half", 0.5)
    return {
        "stage": stage,
        "option": option,
        "class": option,
        "delta": lost,
        "ci_low": lost - half,
        "ci_high": lost + half,
        "p": 0.001 if abs(lost) > half else 0.6,
        "flip_rate": 0.04,
        "measurable": abs(lost) > half,
        "distance": 2.5,
        "missing": None,
        **fields,
    }


ROWS = [
    row("decode", "opencv", 0.0, **{"class": "training system", "distance": 0.0}),
    row("decode", "simplejpeg", 0.0, **{"class": "training system", "distance": 0.0}),
    row("decode", "ffmpeg", 0.31),
    row("decode", "jpeglib-7", 0.77, half=0.2),
    row("decode", "jpeglib-8", 0.77, half=0.2, **{"class": "jpeglib-7"}),
    row("decode", "mnn"),
    row("resize", "opencv-linear", 2.63),
    row("resize", "torch-bilinear", 2.63, **{"class": "opencv-linear"}),
    row("resize", "ncnn-bilinear", 2.63, **{"class": "opencv-linear"}),
    row("resize", "pillow-nearest", 9.31, half=1.25),
    row("resize", "pillow-bicubic", -1.42),
    row("colour", "bgr", 23.4, half=3.0),
    row("colour", "nv12-601-limited-as-709-limited", 1.52, half=0.4),
    row("runtime", "openvino-default", 0.05, distance=None),
    row("runtime", "int8", -0.8, half=0.3, distance=None),
]


def loss(value: float, half: float = 0.6) -> Run:
    return {"value": value, "low": value - half, "high": value + half}


def sample_road(shift: float = 0.0) -> Run:
    """A noise run with every key that a report knows; `shift` is added to every loss."""
    rows = [r if r.get("delta") is None else {**r, "delta": r["delta"] + shift} for r in ROWS]
    return {
        "command": "noise",
        "config": {
            "model": "torchvision:mobilenet_v2@weights.pth",
            "road": {"data": "imagefolder:photos", "limit": 300, "skip_bad": True, "seed": 3},
            "stages": ["decode", "resize", "colour", "runtime"],
            "combine": "exhaustive",
            "out": "out/road",
        },
        "seed": 3,
        "data": {"road": {"spec": "imagefolder:photos", "n": 300}},
        "versions": {"roadworthy": "0.1.0"},
        "host": {"cpu": "x86_64", "threads": 2, "platform": "Linux"},
        "metric": "top1",
        "value": 0.7331 + shift / 100,
        "n": 299,
        "judged_by": "labels",
        "advice": (
            "Serve with the colour path of training: bgr costs 23.4 points (20.4 to 26.4) of "
            "top-1 accuracy. Of 9 different changes 3 have no measurable cost on 299 images."
        ),
        "rows": rows,
        "ladder": [
            {"stage": "decode", "option": "jpeglib-7", "loss": loss(0.77), "alone": 0.77},
            {"stage": "resize", "option": "pillow-nearest", "loss": loss(10.9), "alone": 9.31},
            {"stage": "colour", "option": "bgr", "loss": loss(28.05), "alone": 23.4},
        ],
        "combinations": [
            {"changes": ["resize pillow-nearest", f"colour {i}"], **loss(30.0 - i)}
            for i in range(14)
        ],
        "flips": [
            flip(7, 540, 540, 510, "resize", "pillow-nearest", 6),
            flip(4, 60, 52, 60, "colour", "bgr", 3),
            flip(9, None, 12, 13, "decode", "ffmpeg", 1),
        ],
        "skipped": ["photos/broken.jpg cannot be read"],
        "fingerprint": {
            "libraries": {"pillow": "13.0.0", "simplejpeg": "1.9.0"},
            "torch": "2.15.0",
            "libjpeg_turbo": "3.2.0",
            "cpu": "A Processor",
            "instructions": "AVX512",
            "flags": ["avx2", "avx512_vnni"],
            "threads": 2,
            "cores": 2,
            "runtimes": {
                "as-trained": {"runtime": "torch 2.15.0"},
                "as-trained openvino-default": {
                    "runtime": "openvino 2026.4.1",
                    "INFERENCE_PRECISION_HINT": "bf16",
                    "threads": 2,
                },
            },
        },
        "seconds": 31.5,
    }


def flip(
    index: int, label: int | None, before: float, after: float, stage: str, option: str, n: int
) -> Run:
    return {
        "image": f"photos/{index}.jpg",
        "index": index,
        "label": label,
        "before": float(before),
        "after": float(after),
        "stage": stage,
        "option": option,
        "options": n,
    }


def sample_pictures() -> Run:
    rows = [("decode", "ffmpeg", 64), ("decode", "jpeglib-7", 32), ("colour", "bgr", 1)]
    differences = [
        {"stage": s, "option": o, "factor": f, "levels": 1.5, "picture": picture(f), "shot": 0}
        for s, o, f in rows
    ]
    other = {"stage": "resize", "option": "opencv-linear", "factor": None, "levels": None}
    return {
        "shots": [
            {"file": "photos/1.jpg", "picture": picture(1)},
            {"file": "photos/2.jpg", "picture": picture(2)},
        ],
        "differences": [*differences, {**other, "picture": picture(3), "shot": 1}],
        "thumbnails": {"7": picture(7), "4": picture(4)},
        "names": {"540": "drilling platform", "510": "container ship"},
    }


def sample_blame() -> Run:
    """A run of `noise attribute` with every key that a report knows."""
    return {
        "command": "noise attribute",
        "config": {"model": "timm:net", "road": {"data": "imagefolder:photos"}, "deploy": "b.yaml"},
        "data": {"road": {"n": 300}},
        "metric": "top1",
        "judged_by": "labels",
        "total": loss(11.33, 2.1),
        "shares": {"decode": -0.17, "resize": 1.2, "normalise": 10.3},
        "intervals": {"decode": [-0.6, 0.2], "resize": [0.1, 2.3], "normalise": [8.0, 12.5]},
        "bought_back": {
            "decode": loss(-0.33),
            "resize": loss(1.67),
            "normalise": loss(10.67, 2.0),
        },
        "best_change": "normalise",
        "train": {"decode": "pillow", "resize": "pillow-bicubic", "mean": [0.498], "std": [0.502]},
        "deploy": {"decode": "ffmpeg", "resize": "opencv-cubic", "mean": [0.485], "std": [0.229]},
        "fingerprint": {"cpu": "A Processor"},
        "seconds": 12.0,
    }
