# The kit's app on the CPU. Educational, not for diagnosis.
#   docker build --tag melanoma_lib .   ·   docker compose up web
# The tag names version and distribution; to hold the very bytes, append @sha256:… as `docker pull` prints it.

FROM python:3.12.12-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
RUN python -m venv /opt/kit
# Installed where it lies, so that the kit finds the reference runs beside it, as in a checkout.
WORKDIR /opt/kit/src
# PyTorch's own index has builds without CUDA, which are gigabytes smaller; they satisfy the kit's requirements below.
RUN /opt/kit/bin/pip install --index-url https://download.pytorch.org/whl/cpu "torch>=2.9,<3" "torchvision>=0.24,<1"
COPY pyproject.toml README.md LICENSE ./
# What serving and training need, without JupyterLab, papermill and Weights & Biases, which an ordinary install adds.
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['app'], sep='\n')" > app.txt \
    && /opt/kit/bin/pip install --requirement app.txt
COPY melanoma_lib melanoma_lib
COPY data/reference data/reference
RUN /opt/kit/bin/pip install --no-deps --editable . && /opt/kit/bin/python -m compileall -q melanoma_lib \
    && /opt/kit/bin/pip uninstall --yes pip

FROM python:3.12.12-slim-bookworm
# The health check's curl; its version is the distribution's, which the tag above holds still.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends curl \
    && rm -rf /var/lib/apt/lists/* \
    && python -m pip uninstall --yes pip \
    && useradd --uid 10001 --create-home kit \
    && mkdir -p /kit/data /kit/runs /kit/reports \
    && chown -R kit:kit /kit
COPY --from=build /opt/kit /opt/kit
# Packaged ImageNet weights are inside; the image never asks timm's hub for others.
ENV PATH=/opt/kit/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HF_HUB_OFFLINE=1 \
    GRADIO_ANALYTICS_ENABLED=False \
    MPLCONFIGDIR=/tmp/matplotlib
USER 10001:10001
WORKDIR /kit
VOLUME ["/kit/data", "/kit/runs", "/kit/reports"]
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s --retries=3 \
    CMD ["curl", "--fail", "--silent", "--show-error", "--output", "/dev/null", "http://127.0.0.1:7860/"]
ENTRYPOINT ["python", "-m", "melanoma_lib"]
CMD ["app", "--host", "0.0.0.0", "--port", "7860"]
