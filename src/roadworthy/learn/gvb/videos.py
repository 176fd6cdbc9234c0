"""Data sets of videos, each seen by its middle frame: UCF101, Kinetics-700."""

from pathlib import Path

from roadworthy.core.sources import png, reason
from roadworthy.errors import BadData
from roadworthy.learn.gvb.files import lines, table
from roadworthy.learn.gvb.part import (
    Half,
    Part,
    Row,
    damaged,
    few,
    number_of,
    numbered,
    pictures,
)
from roadworthy.learn.readers import Origin


def ucf101(folder: Path, half: Half, origin: Origin) -> Part:
    """``UCF-101/`` by class and the first split, ``ucfTrainTestlist/{train,test}list01.txt``."""
    listings = folder / "ucfTrainTestlist"
    classes = _in_order(listings / "classInd.txt")
    numbers = numbered(classes)
    path = listings / f"{half}list01.txt"
    videos = [each[0] for each in lines(path, "a video")]
    rows = [(name, number_of(numbers, name.partition("/")[0], path)) for name in videos]
    return pictures(folder / "UCF-101", rows, classes, origin, content=middle_frame)


def _in_order(path: Path) -> list[str]:
    """Classes by their numbers."""
    needed = "number and class"
    held = lines(path, needed, 2)
    try:
        return [name for _, name in sorted(held, key=lambda each: int(each[0]))]
    except ValueError as error:
        raise damaged(path, error, needed) from error


def kinetics700(folder: Path, half: Half, origin: Origin) -> Part:
    """``annotations/{train,val}.csv`` and ``{train,val}/CLASS/ID_START_END.mp4``.

    Blanks of a class are underscores in its folder, quotes and brackets are left out. Videos that
    can no longer be had are left out and told; the validation videos test.
    """
    name = "train" if half == "train" else "val"
    needed = ("label", "youtube_id", "time_start", "time_end")
    path = folder / "annotations" / f"{name}.csv"
    held = table(path, needed)
    classes = sorted({each["label"] for each in table(path.with_name("train.csv"), needed)})
    numbers = numbered(classes)
    rows: list[Row] = []
    absent: list[str] = []
    for each in held:
        try:
            span = f"{int(each['time_start']):06}_{int(each['time_end']):06}"
        except ValueError as error:
            raise damaged(path, error, "times in seconds") from error
        place = each["label"].translate({ord(" "): "_"} | dict.fromkeys(map(ord, "'()")))
        video = f"{place}/{each['youtube_id']}_{span}.mp4"
        if (folder / name / video).is_file():
            rows.append((video, number_of(numbers, each["label"], path)))
        else:
            absent.append(video)
    if not rows:
        raise BadData(f"{folder / name}: {few(absent)} listed and not there; none is")
    part = pictures(folder / name, rows, classes, origin, content=middle_frame)
    return part.tell(f"{few(absent)} listed and not there" if absent else "")


def middle_frame(path: Path) -> bytes:
    """The first frame at or after half of a video, as a PNG.

    Raises:
        BadData: no video, or one without a frame; names the file.
    """
    import av
    from av.error import FFmpegError

    try:
        with av.open(str(path)) as container:
            video = container.streams.video[0]
            middle = (video.start_time or 0) + (video.duration or 0) // 2
            container.seek(middle, stream=video)
            seen = None
            for frame in container.decode(video):
                seen = frame
                if frame.pts is None or frame.pts >= middle:
                    break
            if seen is not None:
                return png(seen.to_image())
    except (OSError, ValueError, IndexError, FFmpegError) as error:
        raise BadData(f"video {path} cannot be read: {reason(error)}") from error
    raise BadData(f"video {path} has no frame")
