"""Documents from a data set on the Hugging Face hub, one file of it downloaded at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from keylm.data import files
from keylm.data.documents import Document
from keylm.data.reading import Reading
from keylm.errors import UserError
from keylm.recipe import Hub


def read(source: Hub, reading: Reading) -> Iterator[Document]:
    """The documents of one configuration and split, in the order of its files.

    The revision is resolved to a commit first, which `reading.facts` keeps. Files stay in huggingface_hub's cache, so
    nothing is downloaded twice.

    Raises:
        UserError: the data set cannot be had, or a row is not a document.
    """
    commit = _resolve(source)
    reading.facts["commit"] = commit
    names = _list_files(source, commit)
    for number, name in enumerate(names):
        yield from files.read_file(_download(source, commit, name), source, Reading())
        reading.done, reading.total = number + 1, len(names)


def _resolve(source: Hub) -> str:
    """The commit that `source.revision` stands for."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    hub = HfApi()
    try:
        hub.auth_check(source.dataset, repo_type="dataset")
        return str(hub.dataset_info(source.dataset, revision=source.revision).sha)
    except GatedRepoError as error:
        raise _gated(source) from error
    except RevisionNotFoundError as error:
        raise UserError(f"the data set {source.dataset} has no revision `{source.revision}`") from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"the hub has no data set {source.dataset}, or it is private: check `dataset` of the source "
            f"`{source.name}`, or log in with `hf auth login`"
        ) from error
    except Exception as error:
        raise _unreachable(source, error) from error


def _list_files(source: Hub, commit: str) -> list[str]:
    """Paths, within the repository, of the files of this configuration and split."""
    from datasets import load_dataset_builder

    try:
        builder = load_dataset_builder(source.dataset, source.config, revision=commit)
    except ValueError as error:
        raise UserError(f"the data set {source.dataset}: {' '.join(str(error).split())}") from error
    except Exception as error:
        raise _unreachable(source, error) from error
    splits = builder.config.data_files or {}
    if source.split not in splits:
        raise UserError(f"{source.dataset} has no split `{source.split}`; it has {', '.join(splits) or 'none'}")
    prefix = f"hf://datasets/{source.dataset}@{commit}/"
    return [str(name).removeprefix(prefix) for name in splits[source.split]]


def _download(source: Hub, commit: str, name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import GatedRepoError

    try:
        return Path(hf_hub_download(source.dataset, name, repo_type="dataset", revision=commit))
    except GatedRepoError as error:
        raise _gated(source) from error
    except Exception as error:
        raise _unreachable(source, error) from error


def _gated(source: Hub) -> UserError:
    return UserError(
        f"the data set {source.dataset} is gated: accept its terms on "
        f"https://huggingface.co/datasets/{source.dataset}, then log in with `hf auth login`"
    )


def _unreachable(source: Hub, error: Exception) -> UserError:
    """Every other failure of the hub's libraries, whose exceptions differ from version to version."""
    reason = (str(error).strip() or "no reason given").splitlines()[0]
    return UserError(
        f"cannot get the data set {source.dataset} from the hub ({type(error).__name__}: {reason}): check the network "
        f"and HF_HUB_OFFLINE, or replace the source `{source.name}` by local files"
    )
