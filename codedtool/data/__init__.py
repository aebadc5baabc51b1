"""Data sets, augmentation and batches (section 4.1)."""

from codedtool.data.augmentation import Augmentation, Normalization, normalize
from codedtool.data.loader import Batch, choose_crop_part, eval_batches, num_train_batches, train_batches
from codedtool.data.sources import load_dataset
from codedtool.data.split import ImageData, Split, check_num_classes, read_classes

__all__ = [
    "Augmentation",
    "Batch",
    "ImageData",
    "Normalization",
    "Split",
    "check_num_classes",
    "choose_crop_part",
    "eval_batches",
    "load_dataset",
    "normalize",
    "num_train_batches",
    "read_classes",
    "train_batches",
]
