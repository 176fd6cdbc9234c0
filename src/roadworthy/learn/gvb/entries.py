"""The 26 data sets.

Sizes are those of the official releases; of sets without an official split (Caltech-101, EuroSAT,
RESISC45) those of the split that the loader draws. Licences are what the home pages say, in a few
words: read the pages before use. Where training and validation images are told apart both train,
as is usual for few images, except where the validation images are all there is to test on.
"""

from roadworthy.learn.gvb import dense, detection, listed, pixels, videos
from roadworthy.learn.gvb.box_measures import FaceAP, MissRate, VocAP
from roadworthy.learn.gvb.entry import ByHand, Entry, Load, Torchvision
from roadworthy.learn.gvb.measures import MeanIoU, MeanPerClass, Measure, Rmse, Top1
from roadworthy.requests import one_of

RESEARCH = "non-commercial research"
UNSAID = "none stated; research use"
_HALVES = ({"train": True}, {"train": False})
_SPLITS = ({"split": "train"}, {"split": "test"})
_TRAINVAL = ({"split": "trainval"}, {"split": "test"})
_THREE = ({"split": "train"}, {"split": "val"}, {"split": "test"})
_VGG = "https://www.robots.ox.ac.uk/~vgg/data"
_KAGGLE = "https://www.kaggle.com/c"


def _images(
    name: str,
    title: str,
    about: tuple[int, tuple[int, int], str, str],
    files: tuple[str, tuple[str, ...]],
    load: Load,
    fetch: Torchvision | ByHand,
    metric: Measure | None = None,
) -> Entry:
    """An entry of classification; top-1 where no other metric is named."""
    classes, sizes, licence, home = about
    return Entry(
        name, title, "classification", metric or Top1(), classes, sizes, licence, home, *files,
        load, fetch,
    )  # fmt: skip


ENTRIES: tuple[Entry, ...] = (
    _images(
        "cifar10", "CIFAR-10",
        (10, (50_000, 10_000), UNSAID, "https://www.cs.toronto.edu/~kriz/cifar.html"),
        ("cifar-10-batches-py", ("batches.meta", "data_batch_1", "data_batch_5", "test_batch")),
        pixels.cifar10, Torchvision("CIFAR10", _HALVES),
    ),
    _images(
        "cifar100", "CIFAR-100",
        (100, (50_000, 10_000), UNSAID, "https://www.cs.toronto.edu/~kriz/cifar.html"),
        ("cifar-100-python", ("meta", "train", "test")),
        pixels.cifar100, Torchvision("CIFAR100", _HALVES),
    ),
    _images(
        "food101", "Food-101",
        (101, (75_750, 25_250), "research; photos under their owners' terms",
         "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/"),
        ("food-101", ("images", "meta/train.json", "meta/test.json")),
        listed.food101, Torchvision("Food101", _SPLITS),
    ),
    _images(
        "pets", "Oxford-IIIT Pets",
        (37, (3_680, 3_669), "CC BY-SA 4.0", f"{_VGG}/pets/"),
        ("oxford-iiit-pet", ("images", "annotations/trainval.txt", "annotations/test.txt")),
        listed.pets, Torchvision("OxfordIIITPet", _TRAINVAL), MeanPerClass(),
    ),
    _images(
        "flowers102", "Oxford Flowers 102",
        (102, (2_040, 6_149), UNSAID, f"{_VGG}/flowers/102/"),
        ("flowers-102", ("jpg", "imagelabels.mat", "setid.mat")),
        listed.flowers102, Torchvision("Flowers102", _THREE), MeanPerClass(),
    ),
    _images(
        "sun397", "SUN397",
        (397, (19_850, 19_850), UNSAID, "https://vision.princeton.edu/projects/2010/SUN/"),
        ("SUN397", ("ClassName.txt", "Partitions/Training_01.txt", "Partitions/Testing_01.txt")),
        listed.sun397,
        ByHand("download SUN397.tar.gz and Partitions.zip from the home page; unpack the first "
               "into the root and the second into SUN397/Partitions"),
    ),
    _images(
        "cars", "Stanford Cars",
        (196, (8_144, 8_041), RESEARCH, "https://ai.stanford.edu/~jkrause/cars/car_dataset.html"),
        ("stanford_cars", ("cars_train", "cars_test", "devkit/cars_meta.mat",
                           "devkit/cars_train_annos.mat", "cars_test_annos_withlabels.mat")),
        listed.cars,
        ByHand("the home page no longer serves the files; place cars_train/, cars_test/, devkit/ "
               "and cars_test_annos_withlabels.mat of a copy that you may use"),
    ),
    _images(
        "dtd", "Describable Textures",
        (47, (3_760, 1_880), "research", f"{_VGG}/dtd/"),
        ("dtd/dtd", ("images", "labels/train1.txt", "labels/val1.txt", "labels/test1.txt")),
        listed.dtd, Torchvision("DTD", _THREE[:1]),
    ),
    _images(
        "caltech101", "Caltech-101",
        (101, (3_030, 5_647), "CC BY 4.0", "https://data.caltech.edu/records/mzrjq-6wc02"),
        ("caltech101", ("101_ObjectCategories",)),
        listed.caltech101, Torchvision("Caltech101", ({},)), MeanPerClass(),
    ),
    _images(
        "aircraft", "FGVC-Aircraft",
        (100, (6_667, 3_333), RESEARCH, f"{_VGG}/fgvc-aircraft/"),
        ("fgvc-aircraft-2013b",
         ("data/images", "data/variants.txt", "data/images_variant_trainval.txt",
          "data/images_variant_test.txt")),
        listed.aircraft, Torchvision("FGVCAircraft", _TRAINVAL[:1]), MeanPerClass(),
    ),
    _images(
        "svhn", "SVHN",
        (10, (73_257, 26_032), RESEARCH, "http://ufldl.stanford.edu/housenumbers/"),
        ("svhn", ("train_32x32.mat", "test_32x32.mat")),
        pixels.svhn, Torchvision("SVHN", _SPLITS, "svhn"),
    ),
    _images(
        "eurosat", "EuroSAT",
        (10, (21_600, 5_400), "MIT; images under Copernicus' terms",
         "https://github.com/phelber/EuroSAT"),
        ("eurosat", ("2750",)),
        listed.eurosat, Torchvision("EuroSAT", ({},)),
    ),
    _images(
        "resisc45", "NWPU-RESISC45",
        (45, (25_200, 6_300), "research",
         "https://gcheng-nwpu.github.io/"),
        ("NWPU-RESISC45", ("airplane", "wetland")),
        listed.resisc45,
        ByHand("download NWPU-RESISC45.rar from the home page and unpack it into the root"),
    ),
    _images(
        "retinopathy", "Diabetic Retinopathy",
        (5, (35_126, 53_576), "rules of the Kaggle competition",
         f"{_KAGGLE}/diabetic-retinopathy-detection"),
        ("diabetic-retinopathy-detection",
         ("trainLabels.csv", "train", "retinopathy_solution.csv", "test")),
        listed.retinopathy,
        ByHand("agree to the rules at Kaggle; unpack train.zip.*, test.zip.* and "
               "trainLabels.csv.zip; retinopathy_solution.csv is on the competition's forum"),
    ),
    _images(
        "fer2013", "FER2013",
        (7, (28_709, 7_178), "rules of the Kaggle competition",
         f"{_KAGGLE}/challenges-in-representation-learning-facial-expression-recognition-challenge"),
        ("fer2013", ("fer2013.csv or icml_face_data.csv",)),
        pixels.fer2013,
        ByHand("agree to the rules at Kaggle; place fer2013.csv (or icml_face_data.csv)"),
    ),
    _images(
        "ucf101", "UCF101 middle frames",
        (101, (9_537, 3_783), UNSAID, "https://www.crcv.ucf.edu/data/UCF101.php"),
        ("ucf101", ("UCF-101", "ucfTrainTestlist/classInd.txt", "ucfTrainTestlist/trainlist01.txt",
                    "ucfTrainTestlist/testlist01.txt")),
        videos.ucf101,
        ByHand("unpack UCF101.rar and UCF101TrainTestSplits-RecognitionTask.zip of the home page"),
    ),
    _images(
        "gtsrb", "German Traffic Signs",
        (43, (26_640, 12_630), UNSAID, "https://benchmark.ini.rub.de/"),
        ("gtsrb", ("GTSRB/Training", "GTSRB/Final_Test/Images", "GT-final_test.csv")),
        listed.gtsrb, Torchvision("GTSRB", _SPLITS),
    ),
    _images(
        "pcam", "PatchCamelyon",
        (2, (262_144, 32_768), "CC0 1.0", "https://github.com/basveeling/pcam"),
        ("pcam", tuple(f"camelyonpatch_level_2_split_{half}_{xy}.h5"
                       for half in ("train", "test") for xy in "xy")),
        pixels.pcam, Torchvision("PCAM", _SPLITS),
    ),
    _images(
        "imagenet", "ImageNet-1k",
        (1000, (1_281_167, 50_000), RESEARCH, "https://image-net.org/"),
        ("imagenet", ("train", "val")),
        listed.imagenet,
        ByHand("agree to the terms of the home page; place the training and validation images in "
               "a folder for each WordNet id, as torchvision.datasets.ImageNet unpacks them"),
    ),
    _images(
        "kinetics700", "Kinetics-700 (2020) middle frames",
        (700, (545_793, 34_256), "CC BY 4.0; videos under YouTube's terms",
         "https://github.com/cvdfoundation/kinetics-dataset"),
        ("kinetics700", ("annotations/train.csv", "annotations/val.csv", "train", "val")),
        videos.kinetics700,
        ByHand("follow the home page (about 700 GB) and sort the videos by class, as "
               "torchvision.datasets.Kinetics does"),
    ),
    Entry(
        "voc0712", "VOC 2007+2012 detection", "detection", VocAP(), 20, (16_551, 4_952),
        "Flickr's terms; research", "http://host.robots.ox.ac.uk/pascal/VOC/", "VOCdevkit",
        ("VOC2007/ImageSets/Main/trainval.txt", "VOC2007/ImageSets/Main/test.txt",
         "VOC2012/ImageSets/Main/trainval.txt"),
        detection.voc,
        Torchvision("VOCDetection", (
            {"year": "2007", "image_set": "trainval"}, {"year": "2007", "image_set": "test"},
            {"year": "2012", "image_set": "trainval"},
        )),
    ),
    Entry(
        "widerface", "WIDER FACE", "detection", FaceAP(), 1, (12_880, 3_226),
        RESEARCH, "http://shuoyang1213.me/WIDERFACE/", "widerface",
        ("wider_face_split", "WIDER_train/images", "WIDER_val/images",
         "eval_tools/ground_truth/wider_face_val.mat"),
        detection.wider_face,
        ByHand("unpack WIDER_train.zip, WIDER_val.zip, wider_face_split.zip and eval_tools.zip of "
               "the home page"),
    ),
    Entry(
        "citypersons", "CityPersons", "detection", MissRate(), 1, (2_975, 500),
        RESEARCH, "https://www.cityscapes-dataset.com/", "cityscapes",
        ("leftImg8bit/train", "leftImg8bit/val", "gtBboxCityPersons/train",
         "gtBboxCityPersons/val"),
        detection.citypersons,
        ByHand("register at the home page; unpack leftImg8bit_trainvaltest.zip and "
               "gtBbox_cityPersons_trainval.zip"),
    ),
    Entry(
        "voc2012", "VOC 2012 segmentation", "segmentation", MeanIoU(), 21, (1_464, 1_449),
        "Flickr's terms; research", "http://host.robots.ox.ac.uk/pascal/VOC/", "VOCdevkit/VOC2012",
        ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation/train.txt",
         "ImageSets/Segmentation/val.txt"),
        dense.voc_masks, Torchvision("VOCSegmentation", ({"year": "2012", "image_set": "train"},)),
    ),
    Entry(
        "kitti", "KITTI depth, Eigen's split", "depth", Rmse(farthest=80.0, crop="garg"), 0,
        (23_158, 652), "CC BY-NC-SA 3.0", "https://www.cvlibs.net/datasets/kitti/", "kitti",
        ("raw", "depth", "eigen_train_files.txt", "eigen_test_files.txt"),
        dense.kitti,
        ByHand("unpack the raw recordings into raw/ and data_depth_annotated.zip into depth/; "
               "place the lists of Eigen's split (one image in a line, DATE/DRIVE/...): as "
               "eigen_{train,test}_files_with_gt.txt they are in train_test_inputs of "
               "github.com/cleinc/bts, to be renamed; those in utils/filenames of "
               "github.com/mrharicot/monodepth have 22 600 training images"),
    ),
    Entry(
        "nyuv2", "NYU Depth v2", "depth", Rmse(farthest=10.0, crop="eigen"), 0, (795, 654),
        UNSAID, "https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html", "nyuv2",
        ("nyu_depth_v2_labeled.mat", "splits.mat"),
        dense.nyu,
        ByHand("download nyu_depth_v2_labeled.mat and splits.mat of the home page"),
    ),
)  # fmt: skip
"""In the order of the published table."""


def entry(name: str) -> Entry:
    """The data set of that name; BadInput names those there are.

    >>> entry("pets").classes
    37
    """
    one_of("data set", name, tuple(each.name for each in ENTRIES))
    return next(each for each in ENTRIES if each.name == name)
