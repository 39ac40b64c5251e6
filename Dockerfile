# `deixis serve` on a CPU:
#     docker build -t deixis .
#     docker run -e DEIXIS_TOKEN=... -p 127.0.0.1:8000:8000 -v models:/models deixis --detector IDEA-Research/grounding-dino-tiny
# pip's default packages of PyTorch bring CUDA along; --build-arg TORCH_INDEX=... names an index with those for CPUs.
FROM python:3.11-slim
ARG TORCH_INDEX=""
ENV HOME=/tmp HF_HOME=/models PYTHONUNBUFFERED=1

WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
RUN pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -c constraints.txt ".[serve]"

WORKDIR /
RUN mkdir -p models jobs && chmod 1777 models jobs
USER 10001
EXPOSE 8000
HEALTHCHECK --start-period=5m CMD python -c "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/ready', timeout=5)"
ENTRYPOINT ["deixis", "serve", "--host", "0.0.0.0", "--port", "8000", "--jobs-folder", "/jobs"]
CMD ["--detector", "builtin", "--segmenter", "builtin"]
