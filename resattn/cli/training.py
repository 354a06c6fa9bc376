"""`data` and `train`: datasets, and one training run."""

from __future__ import annotations

import argparse
import json

from resattn.cli.options import Command, path_of, read_settings, set_option
from resattn.extras import require
from resattn.networks import catalog


def add(command: Command) -> None:
    sub = command("data", lambda args: args.run_data(args), "Download or check a dataset.")
    verbs = sub.add_subparsers(required=True, metavar="fetch|verify")
    fetch = verbs.add_parser("fetch", help="download a dataset")
    fetch.add_argument("name", metavar="NAME", help="cifar10 or cifar100")
    fetch.set_defaults(run_data=_fetch)
    verify = verbs.add_parser("verify", help="check the checksums and sizes of a dataset")
    verify.add_argument("path", type=path_of, metavar="PATH", help="an archive or a folder of a dataset")
    verify.set_defaults(run_data=_verify)

    sub = command("train", _train, "Train one network; an interrupted run resumes from DIR.", resumes=True)
    sub.add_argument("name", metavar="NAME", help="a name of `resattn list`")
    sub.add_argument("--dataset", default="auto", help="auto, cifar10, cifar100 or cluttered-digits")
    sub.add_argument("--epochs", type=int, required=True, metavar="N", help="number of passes over the training images")
    sub.add_argument(
        "--seed", type=int, default=0, metavar="S", help="seed of weights, order and augmentation (default: 0)"
    )
    sub.add_argument("--out", type=path_of, required=True, metavar="DIR", help="folder of checkpoint and results")
    sub.add_argument("--images", type=int, default=0, metavar="N", help="number of training images; 0: all")
    sub.add_argument("--batch-size", type=int, default=64, metavar="N", help="images of one step (default: 64)")
    sub.add_argument(
        "--label-noise", type=float, default=0.0, metavar="X", help="fraction of training labels that are wrong"
    )
    sub.add_argument("--devices", type=int, default=1, metavar="N", help="number of devices (default: 1)")
    sub.add_argument("--strategy", default="auto", help="of Lightning Fabric, such as ddp (default: auto)")
    set_option(sub, "fields of the network or of the run: width=8 lr=0.05 threads=1")


def _fetch(args: argparse.Namespace) -> None:
    require("data fetch", "train")
    from resattn.training.data import fetch

    print(fetch(args.name))


def _verify(args: argparse.Namespace) -> None:
    from resattn.training.data import verify

    print(verify(args.path))


def _train(args: argparse.Namespace) -> None:
    from resattn.training.config import TrainConfig
    from resattn.training.config import override as override_run

    names = ("dataset", "epochs", "seed", "images", "batch_size", "label_noise", "devices", "strategy")
    asked = {name: getattr(args, name) for name in names} | read_settings(args.settings)
    # All at once: some are valid only together, such as a dataset and its number of classes.
    config = override_run(TrainConfig(spec=catalog.named(args.name), epochs=1), asked)
    require("train", "train")
    from resattn.training.loop import train

    run = train(config, args.out)
    print(json.dumps({"test_error_pct": run.test_error_pct, "out": str(args.out)}))
