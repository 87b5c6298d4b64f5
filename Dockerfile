# `keylm serve` on CPUs, without torch and all else that only training and evaluation need. See docs/serve.md.
FROM python:3.11-slim

# What llama.cpp is linked with.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 libstdc++6 \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /keylm
COPY requirements.txt ./
RUN pip install --no-cache-dir --constraint requirements.txt \
    gguf httptools llguidance numpy psutil pydantic pyyaml rich safetensors starlette tokenizers typer uvicorn uvloop \
    xllamacpp

COPY pyproject.toml README.md LICENSE NOTICE ./
COPY src src
RUN pip install --no-cache-dir --no-deps .

RUN useradd --create-home keylm
USER keylm
EXPOSE 8080
# An address that others can reach needs a key: KEYLM_API_KEY.
ENTRYPOINT ["keylm", "serve", "--host", "0.0.0.0"]
