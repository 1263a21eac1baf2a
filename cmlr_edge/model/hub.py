"""Models on the Hugging Face Hub, or on a server that speaks like it: spec, model files, signature and a card."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cmlr_edge.errors import EngineError, OutputError
from cmlr_edge.machine.needed import needed
from cmlr_edge.model.card import card_of
from cmlr_edge.model.files import (
    read_file,
    require_unchanged,
    signature_path,
    write_atomically,
)
from cmlr_edge.model.pair import ModelPair
from cmlr_edge.model.spec import ModelSpec

MOST_BYTES = 4 << 30  # of one file: no model for an edge device is larger
_SPEC = "model.json"
_ASKING = {"httpx", "httpx2", "requests"}


def push(engine: Path, repository: str, *, private: bool = True, revision: str = "main") -> str:
    """Send an engine with its spec, its signature and a card; one commit, so nobody sees half of it.

    Args:
        engine: Model file, whole and as its spec says.
        repository: "owner/name"; made where it does not exist. Who may write is told by the token of
            `hf auth login`, or HF_TOKEN.
        private: A new repository is seen by its owner alone.
        revision: Branch.

    Returns:
        The address of the commit.

    Raises:
        EngineError: The engine is not what its spec says.
        OutputError: The hub cannot be reached, or refuses.
        DependencyError: huggingface_hub is not installed.
    """
    hub = _hub()
    pair = ModelPair.read(engine)
    spec, folder = pair.spec, engine.parent
    contents = {_SPEC: pair.spec_text}
    for name, built in spec.files.items():
        if (folder / name).exists() or folder / name == engine:
            contents[name] = read_file(folder / name)
            require_unchanged(folder / name, contents[name], built.sha256)
        if (signature := signature_path(folder / name)).is_file():
            contents[signature.name] = read_file(signature)
    own = folder / "README.md"
    contents["README.md"] = (
        own.read_bytes() if own.is_file() else card_of(spec, repository).encode()
    )
    files = [hub.CommitOperationAdd(name, content) for name, content in contents.items()]
    with _said_in_one_line(repository, OutputError):
        api = hub.HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        done = api.create_commit(
            repository, files, commit_message=f"Add {spec.name}", revision=revision
        )
    return str(done.commit_url)


def pull(repository: str, folder: Path, *, revision: str = "main") -> Path:
    """Fetch an engine: its spec, the files that the spec names, and their signatures; nothing else.

    Args:
        repository: "owner/name".
        folder: Where they go; made where it does not exist. Its files are replaced once all have come
            and are as the spec says, the spec last.
        revision: Branch, tag or commit.

    Returns:
        The model file.

    Raises:
        EngineError: The repository is no engine, is not whole, or cannot be reached.
        SpecError: Its spec cannot be used.
        DependencyError: huggingface_hub is not installed.
    """
    hub = _hub()
    with _folder(folder), tempfile.TemporaryDirectory(dir=folder, prefix=".pull-") as place:
        with _said_in_one_line(repository, EngineError):
            info = hub.HfApi().model_info(repository, revision=revision, files_metadata=True)
            sizes = {item.rfilename: item.size or 0 for item in info.siblings or []}
            if _SPEC not in sizes:
                raise EngineError(f"{repository} has no {_SPEC}: it is not an engine of cmlr_edge")

            def fetch(name: str) -> Path:
                if sizes[name] > MOST_BYTES:
                    raise EngineError(
                        f"{repository}: {name} has {sizes[name]} bytes; expected at most 4 GiB"
                    )
                return Path(
                    hub.hf_hub_download(repository, name, revision=info.sha, local_dir=place)
                )

            spec = ModelSpec.load(fetch(_SPEC))
            here = [name for name in spec.files if name in sizes]
            signatures = [f"{name}.sig" for name in here if f"{name}.sig" in sizes]
            fetched = {name: fetch(name).read_bytes() for name in (*here, *signatures, _SPEC)}
        if not here:
            raise EngineError(f"{repository} has none of {', '.join(spec.files)}: it is not whole")
        for name in here:
            require_unchanged(Path(repository) / name, fetched[name], spec.files[name].sha256)
        for name, content in fetched.items():
            write_atomically(folder / name, content)
    return folder / here[0]


@contextmanager
def _folder(folder: Path) -> Iterator[None]:
    """Make a folder, and take away again what was made of it where nothing comes into it."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with suppress(OSError):  # what is not empty stays
            for path in made:
                path.rmdir()
        raise


def _hub() -> Any:
    with needed("the hub needs huggingface_hub", "pip install 'cmlr-edge[hub]'"):
        import huggingface_hub
    return huggingface_hub


@contextmanager
def _said_in_one_line(repository: str, kind: type[EngineError | OutputError]) -> Iterator[None]:
    """Tell a missing repository, a missing right and a hub that cannot be reached apart."""
    from huggingface_hub import errors

    try:
        yield
    except errors.HFValidationError as error:
        raise kind(
            f"{repository} is no name on the hub: expected owner/name (a folder of this machine is "
            "an engine already, and needs no hub)"
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise kind(
            f"{repository} is not on the hub, or not for you: check owner/name and revision; hf auth login"
        ) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        raise kind(f"the hub answers {status} for {repository}: {_first_line(error)}") from error
    except Exception as error:
        # Which library asks the hub differs from version to version of huggingface_hub.
        away = (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)
        if isinstance(error, away) or type(error).__module__.partition(".")[0] in _ASKING:
            raise kind(
                f"the hub cannot be reached for {repository}: {_first_line(error)}"
            ) from error
        raise


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
