# pflx on NVIDIA GPUs, with CUDA 13 from packages; of the host it needs the driver and the NVIDIA Container Toolkit.
# Not built yet: linted, and its list of files is tested (docs/containers.md).
FROM python:3.13-slim AS build
ARG EXTRAS=gpu,serve
WORKDIR /source
COPY . .
RUN python -m venv /opt/pflx && /opt/pflx/bin/pip install --no-cache-dir ".[${EXTRAS}]"

FROM python:3.13-slim
RUN useradd --create-home --uid 10001 pflx
COPY --from=build /opt/pflx /opt/pflx
COPY docker/health.py /opt/health.py
ENV PATH=/opt/pflx/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001
WORKDIR /data
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["python", "/opt/health.py"]
ENTRYPOINT ["pflx"]
CMD ["--help"]
