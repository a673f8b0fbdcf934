"""Starts the server: `python -m engine.server --base-model FOLDER --checkpoints FOLDER --key-file FILE [--port P]`.

Prints one JSON line when it answers ({"url", "pid", ...}), and writes the same to `--ready-file`. Ends on SIGTERM,
on Ctrl-C, and after `--idle-exit` seconds without a session; with code 3 where `--only-one` finds another. Thread and
memory settings are made here, before torch is loaded.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import signal
import socket
import sys
from pathlib import Path

from engine.errors import EndpointError, EngineError
from engine.platforms import lock_file, reuse_address
from engine.server import NOT_ALONE


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 after a clean end, 2 when it can't start."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
    # Idle threads of the math library sleep rather than spin: the same machine runs the dashboard and the runner.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    life = options.only_one.open("a+") if options.only_one else None
    if life and not lock_file(life):
        # To be held until the process is gone, however it goes.
        return NOT_ALONE
    try:
        serve(options)
    except EngineError as error:
        print(f"thinker serve: {error}", file=sys.stderr)
        return 2
    return 0


def serve(options: argparse.Namespace) -> None:
    """Loads the model, binds, answers until told to stop. Raises EngineError."""
    from engine.server.security import KEY_VARIABLE, KEYS_VARIABLE, LOOPBACK, Guard, read_or_make_keys

    keys = read_or_make_keys(options.key_file)
    listener = bind(options.host, options.port)
    # Libraries and model stay for good: looking for garbage among them took a fifth of the start, and would take long pauses later.
    gc.disable()

    import torch
    import uvicorn

    from engine.rendering import load_tokenizer
    from engine.server.api import build_app
    from engine.server.checkpoints import CheckpointStore
    from engine.server.connections import Connection
    from engine.server.model import BaseModel
    from engine.server.service import Service

    if options.threads:
        torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Nothing here reads memory that it hasn't written, and filling it costs sampling several percent.
    torch.utils.deterministic.fill_uninitialized_memory = False
    tokenizer = load_tokenizer(options.base_model)
    base = BaseModel(options.base_model, options.device, options.dtype)
    base.cache_share = options.cache_share
    store = CheckpointStore(options.checkpoints)
    name = options.name or str(options.base_model)
    # A hub id finds its tokenizer on any machine; other names only mean something here, so clients get the folder.
    tokenizer_id = name if "/" in name and not Path(name).exists() else str(options.base_model)

    def make_service() -> Service:
        import asyncio

        return Service(base, name, tokenizer_id, store, tokenizer, asyncio.get_running_loop(), reference=options.reference)

    def on_idle(seconds: float) -> None:
        if options.idle_exit and seconds > options.idle_exit:
            logging.getLogger("thinker.server").info("idle for %.0f s: ending", seconds)
            os.kill(os.getpid(), signal.SIGTERM)

    port = listener.getsockname()[1]
    url = f"http://{options.host}:{port}"
    beyond_loopback = options.host not in LOOPBACK
    app = build_app(make_service, compress=options.compress or beyond_loopback, on_idle=on_idle, keys=keys)
    hosts = [*LOOPBACK, options.host, *options.allow_host]
    limits = {"timeout_graceful_shutdown": 3, "timeout_keep_alive": 75}
    config = uvicorn.Config(Guard(app, keys, hosts), http=Connection, log_level="warning", lifespan="on", access_log=False, **limits)
    server = uvicorn.Server(config)
    key_place = next((name for name in (KEY_VARIABLE, KEYS_VARIABLE) if os.environ.get(name)), str(options.key_file))
    ready = {
        "url": url,
        "pid": os.getpid(),
        "key_in": key_place,
        "base_model": name,
        "device": base.device,
        "dtype": str(base.dtype).removeprefix("torch."),
    }
    _announce_when_started(server, ready, options.ready_file)
    gc.freeze()
    gc.enable()
    server.run(sockets=[listener])


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises EndpointError for a port in use or a bad address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    reuse_address(listener)
    try:
        listener.bind((host.strip("[]"), port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise EndpointError(
            f"can't listen on {host} port {port}: {error.strerror or error}", "Take another --port, or 0 for any free one.", where="--port"
        ) from error
    return listener


def _announce_when_started(server, ready: dict, file: Path | None) -> None:
    """The ready line comes once requests are answered, not before."""
    inner = server.startup

    async def startup(sockets=None) -> None:
        await inner(sockets=sockets)
        if file:
            draft = file.with_name(file.name + ".tmp")
            draft.write_text(json.dumps(ready), encoding="utf-8")
            os.replace(draft, file)
        print(json.dumps(ready), flush=True)

    server.startup = startup


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="thinker serve", description="A Tinker-compatible server for one base model.")
    parser.add_argument("--base-model", type=Path, required=True, help="a local folder with config.json and *.safetensors")
    parser.add_argument("--name", default="", help="the name by which clients ask for the base model")
    parser.add_argument("--checkpoints", type=Path, required=True, help="where checkpoints are kept")
    parser.add_argument("--key-file", type=Path, default=None, help="the file with the key, or `name key` a line; made if absent")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=8765, help="0 takes a free one")
    parser.add_argument("--allow-host", action="append", default=[], help="a further name that clients may call this machine by")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument(
        "--dtype", default="auto", help="auto (on a CPU float32, where it can with bfloat16 products in training), float32 or bfloat16"
    )
    parser.add_argument(
        "--cache-share",
        type=_share,
        default=0.3,
        metavar="SHARE",
        help="of the memory that is free at the start, what running samples may take for keys and values (default 0.3); others wait",
    )
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves it to PyTorch")
    parser.add_argument("--idle-exit", type=float, default=0, help="end after so many seconds without a session; 0 never")
    parser.add_argument("--only-one", type=Path, default=None, metavar="FILE", help="end at once where another server has locked this file")
    parser.add_argument("--compress", action="store_true", help="ask clients to compress training requests (zstd)")
    parser.add_argument("--reference", action="store_true", help="the plain ways only: slower, and what the fast ones are tested against")
    parser.add_argument("--ready-file", type=Path, default=None, help="written when the server answers")
    return parser


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError("a share lies between 0 and 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
