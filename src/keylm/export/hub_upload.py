"""Upload of an export to the Hugging Face hub, as one repository for both transformers and llama.cpp."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from keylm.common.errors import KeyLMError, UserError
from keylm.common.files import CHECKSUMS
from keylm.run import Run

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd
    from huggingface_hub.errors import HfHubHTTPError


def upload_to_hub(run: Run, repo_id: str, private: bool = False) -> str:
    """Upload a run's export in one commit, and return the URL of the repository.

    The files of `transformers/` go to the root of the repository, next to the GGUF files, where `from_pretrained` and
    `llama-cli -hf` look for them. The environment variables `HF_ENDPOINT` and `HF_TOKEN` apply.

    Args:
        run: A run whose `export` stage is done.
        repo_id: The repository, as OWNER/NAME; it is created if it does not exist.
        private: Whether a new repository is private.

    Raises:
        UserError: The run is not exported, `repo_id` is not a repository name, or the hub denies access.
        KeyLMError: A file has changed since the export, or the hub cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    operations = _commit_operations(run)
    hub = HfApi()
    try:
        url = hub.create_repo(repo_id, private=private, exist_ok=True)
        hub.create_commit(url.repo_id, operations, commit_message=f"Upload {run.recipe.title or run.recipe.name}")
    except HFValidationError as error:
        raise UserError(f"`{repo_id}` is not a repository name: pass OWNER/NAME") from error
    except LocalTokenNotFoundError as error:
        raise UserError("no access token for the hub: log in with `hf auth login`, or set HF_TOKEN") from error
    except HfHubHTTPError as error:
        raise _translate_http_error(repo_id, error) from error
    except Exception as error:  # which network library raises it depends on the version of huggingface_hub
        reason = f"{type(error).__name__}: {error}"
        raise KeyLMError(f"cannot upload to {hub.endpoint} ({reason}): try again later") from error
    return str(url)


def _commit_operations(run: Run) -> list[CommitOperationAdd]:
    """An operation for each exported file, and for a `SHA256SUMS` with the paths in the repository."""
    from huggingface_hub import CommitOperationAdd

    folder, files = run.stage("export"), run.metadata("export")["files"]
    # By path in the repository: both copies of the card end up at the same one.
    operations, checksums = {}, {}
    for name, file in files.items():
        path = PurePosixPath(name)
        path_in_repo = path.name if path.parent.name == "transformers" else name
        operation = CommitOperationAdd(path_in_repo, folder / name)
        if operation.upload_info.sha256.hex() != file["sha256"]:
            raise KeyLMError(f"{folder / name} has changed since the export: delete {folder} and export again")
        operations[path_in_repo] = operation
        checksums[path_in_repo] = file["sha256"]
    sums = "".join(f"{digest}  {path_in_repo}\n" for path_in_repo, digest in sorted(checksums.items()))
    return [*operations.values(), CommitOperationAdd(CHECKSUMS, sums.encode())]


def _translate_http_error(repo_id: str, error: HfHubHTTPError) -> KeyLMError:
    if error.response.status_code in (401, 403):
        return UserError(
            f"the hub denies write access to {repo_id}: log in with `hf auth login` and a token that may write"
        )
    reason = str(error).strip().splitlines()[0]
    return KeyLMError(f"the hub rejected the upload to {repo_id}: {reason}")
