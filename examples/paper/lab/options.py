"""Options that several scripts have: text, images, jobs; and what must go together."""

from keras_acclip._utils import processes
from keras_acclip._utils.commands import positive, to_path

SMALL_SIZE, PAPER_SIZE = 32, 224  # Pixels a side.
HEAD = 64  # Coordinates of a BERT's attention head.


def add_text(parser):
    """Adds the options that `token_rows.load` reads, but for the sizes."""
    add = parser.add_argument
    add("--text", nargs="+", metavar="FILE", help="plain or .gz, globs; default: docstrings")
    add("--validation-text", nargs="+", metavar="FILE", help="default: a part of --text")


def check_text(parser, options):
    """Ends the command where the options of `add_text` don't go together."""
    if options.validation_text and not options.text:
        parser.error("--validation-text needs --text")


def add_images(parser):
    """Adds the options that `images.load` reads to a command line that has `--scale`."""
    add = parser.add_argument
    add("--images", type=to_path, metavar="DIR", help="folder of class folders; default: digits")
    add("--tfds", metavar="NAME", help="of TensorFlow Datasets, e.g. cifar10, imagenet2012")
    add(
        "--tfds-dir",
        type=to_path,
        metavar="DIR",
        help="where its prepared data lies or shall lie",
    )
    add(
        "--image-size",
        type=int,
        metavar="PIXELS",
        help=f"for --images and --tfds; default: {SMALL_SIZE}, with --scale paper {PAPER_SIZE}",
    )


def check_images(parser, options):
    """Ends the command where the options of `add_images` don't go together; sets `image_size`."""
    if options.images and options.tfds:
        parser.error("--images and --tfds: one of the two, not both")
    if options.tfds_dir and not options.tfds:
        parser.error("--tfds-dir needs --tfds")
    if options.image_size is not None and not (options.tfds or options.images):
        parser.error("--image-size needs --tfds or --images")
    if options.scale == "paper" and not (options.images or options.tfds):
        parser.error("--scale paper needs --images or --tfds: digits are too small for it")
    if options.image_size is None:
        options.image_size = PAPER_SIZE if options.scale == "paper" else SMALL_SIZE
    if options.image_size < SMALL_SIZE:
        parser.error(f"--image-size {options.image_size} must be at least {SMALL_SIZE}")


def add_jobs(parser):
    """Adds `--jobs` to a script's command line."""
    cpus = processes.available_cpus()
    help = f"trainings at a time; default: {cpus}, or 1 off CPU"
    parser.add_argument("--jobs", type=positive, help=help)


def check_warmup(parser, options):
    """Ends the command where the warm-up does not end before the training."""
    if options.warmup >= options.steps:
        parser.error(f"--warmup {options.warmup} must be below --steps {options.steps}")


def check_schedule(parser, options, parts="epochs"):
    """Ends the command where its steps, warm-up and the option `parts` don't go together."""
    count = getattr(options, parts)
    if options.steps % count:
        parser.error(f"--steps {options.steps} must be a multiple of --{parts} {count}")
    check_warmup(parser, options)


def check_width(parser, options, head=HEAD):
    """Ends the command where a layer can't be divided into heads."""
    if options.hidden % head:
        parser.error(f"--hidden {options.hidden} must be a multiple of {head}, the size of a head")
