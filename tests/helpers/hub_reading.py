"""Read hub data sets in processes of their own, because the hub's libraries read their settings at import."""

import io
import json
import os
import subprocess
import sys

import pyarrow
import pyarrow.parquet

READ = """
import json, sys
from itertools import islice
from keylm.data.sources.hub import read_hub
from keylm.data.sources.progress import ReadProgress, SourceSlice
from keylm.data.sources.retries import Retries
from keylm.common.errors import MissingSourceError, UserError
from keylm.recipe.sources import HubConfig

def outcome(settings):
    source_slice, limit = SourceSlice(*settings.pop("slice", (0, 1))), settings.pop("limit", None)
    progress = ReadProgress()
    retries = Retries(first_wait_seconds=0.01)
    source = HubConfig(**{"name": "mine", **settings})
    try:
        documents = list(islice(read_hub(source, progress, source_slice, retries), limit))
    except UserError as error:
        return {"error": str(error), "missing": isinstance(error, MissingSourceError)}
    contents = [[document.text, document.messages] for document in documents]
    return {"documents": contents, "metadata": progress.metadata, "fraction": progress.fraction}

print(json.dumps([outcome(settings) for settings in json.loads(sys.argv[1])]))
"""


def start_reading(settings, folder, **environment):
    """Start a process that reads each of these sources."""
    variables = {**os.environ, "HF_HOME": str(folder), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", **environment}
    command = [sys.executable, "-c", READ, json.dumps(settings)]
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def read_all(settings, folder, **environment):
    """The outcome of reading each of these sources, and what was printed on the console."""
    process = start_reading(settings, folder, **environment)
    output, console = process.communicate(timeout=120)
    assert process.returncode == 0, console
    return json.loads(output), console


def parquet(rows, schema=None):
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema), file, row_group_size=64)
    return file.getvalue()
