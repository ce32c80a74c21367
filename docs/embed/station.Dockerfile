# A station at the line, on a CPU. From the top of the repository:
#   docker build -f docs/embed/station.Dockerfile -t anomaly-station .
#   docker run --restart always -v /srv/press-3:/station -p 502:5020 anomaly-station
# /srv/press-3 holds station.toml and the detector, and user 10001 may write it. A USB camera: --device /dev/video0.
FROM python:3.13-slim-bookworm AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY requirements/lock.txt requirements/lock.txt
COPY anomaly anomaly
COPY training training
COPY dashboard dashboard
RUN python -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --constraint requirements/lock.txt ".[cpu,station]" \
    && /venv/bin/pip uninstall -y pip

FROM python:3.13-slim-bookworm
COPY --from=build /venv /venv
RUN useradd --system --uid 10001 --no-create-home anomaly
USER 10001
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 ANOMALY_CACHE=/station/cache
WORKDIR /station
ENTRYPOINT ["anomaly", "run"]
CMD ["station.toml"]
