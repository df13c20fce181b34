"""The command `vitcourse`."""

import argparse
import json
import os
import sys
from pathlib import Path


def doctor(args):
    """Examine this computer and say what to mend."""
    from vitcourse.lab import doctor

    return doctor.main()


def lab(args):
    """Open the lessons in JupyterLab; further options go to JupyterLab."""
    from vitcourse.lab import workspace

    return workspace.open_lab(args.rest)


def update(args):
    """Bring the lessons in work/ up to date, and overwrite nothing that you changed."""
    from vitcourse.lab import workspace

    print("\n".join(workspace.update()))
    return 0


def progress(args):
    """Show which exercises are done, what comes next, and what has become stale."""
    from vitcourse import check

    check.progress()
    return 0


def handout(args):
    """Write copies of lessons without hints and solutions, for a class."""
    from vitcourse.lab.handout import handout

    for path in handout(args.lessons, args.out, nbgrader=args.nbgrader):
        print(path)
    return 0


def slides(args):
    """Write lessons as slides with speaker's notes: one page each, which needs no network."""
    from vitcourse.lab.slides import slides

    for path in slides(args.lessons, args.out):
        print(path)
    return 0


def book(args):
    """Write the course as a web site, which opens from the file system and needs no network."""
    from vitcourse.lab.book import book

    print(book(args.out))
    return 0


def train(args):
    """Train a ViT: on digits, if nothing else is said, in a minute on any computer."""
    from vitcourse import train
    from vitcourse.data import NAMES, load

    if args.resume:
        out = Path(args.resume)
        if args.recipe or args.model or args.out or args.data or args.image or args.stream:
            raise ValueError("--resume goes on with a run as it is: beside it give only --set")
        if not (out / "recipe.json").is_file():
            raise FileNotFoundError(f"{out} holds no run: there is no recipe.json to resume")
        recipe = train.Recipe.from_json((out / "recipe.json").read_text())
        origin = json.loads((out / "data.json").read_text())
    else:
        name = args.data or "digits"
        if (args.image is not None or args.stream) and name in NAMES:
            raise ValueError(f"--image and --stream are for a folder of pictures, not for {name}")
        options = {"image": args.image} if args.image is not None else {}
        origin = {"name": name, "options": options | ({"stream": True} if args.stream else {})}
        recipe = find_recipe(train.RECIPES, args.recipe, name)
        if not args.out and int(os.environ.get("WORLD_SIZE", 1)) > 1:
            raise ValueError("several processes need one folder: give --out RUN")
        out = Path(args.out) if args.out else new_folder(Path("runs"), Path(name).name)
    settings = [f"model={args.model}"] * bool(args.model) + args.set
    if args.resume and any(s.split("=")[0] not in train.HOW for s in settings):
        raise ValueError(f"a run is resumed as it was; only {', '.join(train.HOW)} can be set")
    recipe = recipe.with_settings(settings)
    data = load(origin["name"], **origin["options"])
    if len(data.classes) < 2:
        raise ValueError(
            f"{data.name} has one class, {data.classes[0]}: to classify, it needs 2 or more"
        )
    model = train.build_model(recipe, data)
    if train.is_first():
        print(f"{data}\nmodel {recipe.model}, run folder {out}", flush=True)
    try:
        run = train.fit(
            model,
            data,
            recipe,
            out=out,
            resume=bool(args.resume),
            device=args.device,
            origin=origin,
        )
    except train.Stopped as stopped:
        print(f"vitcourse: {stopped}", file=sys.stderr, flush=True)
        return 1
    if train.is_first():
        print(f"test accuracy {run.accuracy:.2%}; everything is in {out}")
    train.leave()
    return 0


def evaluate(args):
    """Test a trained model, and draw which classes it confuses."""
    from vitcourse import train
    from vitcourse.data import load
    from vitcourse.show.pictures import confusion_matrix

    path = find_model(args.run)
    model, about = restore(path)
    name = args.data or about.get("data")
    if name is None:
        raise ValueError(f"{path} does not say which data it was trained on: give --data")
    data = load(name, **({"image": model.cfg.image[0]} if Path(name).is_dir() else {}))
    if list(data.classes) != list(about["classes"]) or data.channels != model.cfg.channels:
        raise ValueError(f"{path} knows the classes {about['classes']}, {data.name} has others")
    data = data.normalised_by(about["mean"], about["std"])
    result = train.evaluate(model, data, args.device)
    picture = new_file(Path(args.out) if args.out else path.parent / "confusion.png")
    picture.parent.mkdir(parents=True, exist_ok=True)
    confusion_matrix(result["confusion"], data.classes).savefig(picture, dpi=100)
    print(f"{data.name}: accuracy {result['accuracy']:.2%}, loss {result['loss']:.4f}")
    print(f"which classes it confuses: {picture}")
    return 0


def predict(args):
    """Classify pictures, and draw where the model looks."""
    from vitcourse.train.predict import predict_file

    if args.top < 1:
        raise ValueError(f"--top is {args.top}: it must be 1 or more")
    path = find_model(args.run)
    model, about = restore(path)
    folder = Path(args.out) if args.out else path.parent / "predictions"
    for name in args.images:
        best, figure = predict_file(model, about, name, top=args.top)
        picture = new_file(folder / f"{Path(name).stem}-attention.png")
        picture.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(picture, dpi=100)
        print(f"{name}: {', '.join(f'{label} {chance:.1%}' for label, chance in best)} ({picture})")
    return 0


# What the commands share ------------------------------------------------------------------------


def find_recipe(recipes, name, data):
    """The recipe of that name; or else the one named like the data, or the one for folders."""
    if name is None:
        return recipes.get(data, recipes["folder"])
    if name not in recipes:
        raise ValueError(f"there is no recipe {name!r}: choose from {', '.join(recipes)}")
    return recipes[name]


def find_model(run):
    """The weights of a run folder, a file, or a model that comes with the course, by its name."""
    from vitcourse.data import models

    for path in (Path(run) / "model.safetensors", Path(run), models.path(run)):
        if path.is_file():
            return path
    if (Path(run) / "recipe.json").is_file():
        raise FileNotFoundError(f"the run in {run} is not finished: vitcourse train --resume {run}")
    known = ", ".join(models.names()) or "none yet"
    raise FileNotFoundError(
        f"{run} is no finished run, no file and no model of the course ({known})"
    )


def restore(path):
    """A model, and what was saved about it, which must hold all that a picture needs."""
    from vitcourse import weights

    model, about = weights.restore(path)
    if missing := [name for name in ("classes", "mean", "std") if name not in about]:
        raise ValueError(
            f"{path} does not hold {', '.join(missing)}: save it with "
            f"weights.save(model, file, classes=..., mean=..., std=...), as lists"
        )
    return model, about


def new_folder(parent, name):
    """A folder that is not there yet: NAME-1, NAME-2, ..."""
    number = 1
    while (parent / f"{name}-{number}").exists():
        number += 1
    return parent / f"{name}-{number}"


def new_file(path):
    """The path, or with a number in its name if that file is there."""
    number, wanted = 2, path
    while path.exists():
        path = wanted.with_stem(f"{wanted.stem}-{number}")
        number += 1
    return path


def build_parser():
    """All commands and their options."""
    parser = argparse.ArgumentParser(prog="vitcourse", description="The Vision Transformer course.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(function):
        name, text = function.__name__, function.__doc__.splitlines()[0]
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(function=function)
        return added

    command(doctor)
    command(lab)
    command(update)
    command(progress)
    add = command(handout).add_argument
    add("lessons", metavar="LESSON", nargs="+", help="the beginning of a name, such as 01")
    add("--out", metavar="FOLDER", required=True, help="a new folder")
    add("--nbgrader", action="store_true", help="make it an nbgrader course")
    add = command(slides).add_argument
    add("lessons", metavar="LESSON", nargs="*", help="the beginning of a name; if not given, all")
    add("--out", metavar="FOLDER", help="a new folder, or one written before; if not given, slides")
    add = command(book).add_argument
    add("--out", metavar="FOLDER", help="a new folder, or an earlier book; if not given, book")
    add = command(train).add_argument
    add("--data", help="digits (if not given), shapes, cifar10, or a folder of pictures")
    add("--image", type=int, help="for a folder: the side to which pictures are fitted, or 32")
    add("--stream", action="store_true", help="for a folder too large for memory: read as needed")
    add("--recipe", help="a named recipe; if not given, the one named like the data")
    add("--model", help='a size, such as "Micro/4"')
    add(
        "--set", metavar="NAME=VALUE", action="append", default=[], help="set a field of the recipe"
    )
    add("--out", metavar="RUN", help="the folder of the run, which must be new")
    add("--resume", metavar="RUN", help="go on with this run")
    add("--device", default="auto", help="cpu, cuda or mps; if not given, the fastest")
    run = "a run folder, a .safetensors file, or the name of a model of the course"
    add = command(evaluate).add_argument
    add("run", metavar="RUN", help=run)
    add("--data", help="the data to test on; if not given, those it was trained on")
    add("--out", metavar="PNG", help="where the confusion matrix goes")
    add("--device", default="auto")
    add = command(predict).add_argument
    add("run", metavar="RUN", help=run)
    add("images", metavar="IMAGE", nargs="+")
    add("--top", type=int, default=3, help="how many classes to name")
    add("--out", metavar="FOLDER", help="where the pictures of attention go")
    return parser


def main(arguments=None):
    """Run one command; a wrong argument gets one line and the exit code 2."""
    parser = build_parser()
    args, args.rest = parser.parse_known_args(arguments)
    if args.rest and args.command != "lab":
        parser.error(f"{args.command} takes no {args.rest[0]!r}")
    try:
        return args.function(args)
    except (ValueError, TypeError, OSError) as error:
        print(f"vitcourse: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("vitcourse: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
