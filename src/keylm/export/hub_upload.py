"""Publishing a run's export on the Hugging Face hub, as one repository that transformers and llama.cpp both read."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from keylm.common.errors import KeyLMError, UserError
from keylm.export.stage import CHECKSUMS
from keylm.run import Run

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd


def upload(run: Run, repo_id: str, private: bool = False) -> str:
    """Upload the run's export to `repo_id` in one commit, and return the repository's address.

    The repository is made if there is none. It holds the files of `transformers/` beside the GGUF files, because that
    is where `from_pretrained` and `llama-cli -hf` look. `HF_ENDPOINT` and `HF_TOKEN` are obeyed.

    Raises:
        UserError: the run is not exported, the name is not one of a repository, or the hub refuses you.
        KeyLMError: a file is not the one that was exported, or the hub cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    operations = _operations(run)
    hub = HfApi()
    try:
        address = hub.create_repo(repo_id, private=private, exist_ok=True)
        hub.create_commit(address.repo_id, operations, commit_message=f"Upload {run.recipe.title or run.recipe.name}")
    except HFValidationError as error:
        raise UserError(f"`{repo_id}` is no name of a repository: give it as OWNER/NAME") from error
    except LocalTokenNotFoundError as error:
        raise UserError("the hub does not know you: log in with `hf auth login`, or set HF_TOKEN") from error
    except HfHubHTTPError as error:
        raise _refused(repo_id, error) from error
    except Exception as error:  # the errors of its network library differ from version to version
        raise KeyLMError(
            f"cannot publish at {hub.endpoint} ({type(error).__name__}: {error}): try again later"
        ) from error
    return str(address)


def _operations(run: Run) -> list[CommitOperationAdd]:
    """Every released file with its place in the repository, and checksums that name those places."""
    from huggingface_hub import CommitOperationAdd

    folder, files = run.stage("export"), run.metadata("export")["files"]
    operations = {_place(name): CommitOperationAdd(_place(name), folder / name) for name in files}
    hashes = {_place(name): facts["sha256"] for name, facts in files.items()}
    for name in files:
        if operations[_place(name)].upload_info.sha256.hex() != files[name]["sha256"]:
            raise KeyLMError(f"{folder / name} is not the file that was exported: delete {folder} and export again")
    sums = "".join(f"{digest}  {place}\n" for place, digest in sorted(hashes.items()))
    return [*operations.values(), CommitOperationAdd(CHECKSUMS, sums.encode())]


def _place(name: str) -> str:
    return str(PurePosixPath(name).relative_to("transformers")) if Path(name).parent.name == "transformers" else name


def _refused(repo_id: str, error: Exception) -> KeyLMError:
    """The hub's refusal, as the mistake or the failure that it is."""
    status = error.response.status_code  # type: ignore[attr-defined]
    if status in (401, 403):
        return UserError(
            f"the hub refuses to write to {repo_id}: log in with `hf auth login`, with a token that may write there"
        )
    reason = str(error).strip().splitlines()[0]
    return KeyLMError(f"the hub did not take {repo_id}: {reason}")
