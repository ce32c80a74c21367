"""`anomaly serve`: the real server in a process of its own, asked by clients that others wrote."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from anomaly.detector.file import CalibrationImages, recalibrate
from anomaly.errors import AnomalyError, RequestError
from anomaly.quality.moved_threshold import write_review_threshold
from anomaly.scorer import Result, Scorer
from anomaly.serve.access import Keys, is_own, read_keys
from anomaly.serve.app import STATUSES
from anomaly.serve.detectors import Detectors
from anomaly.serve.judging import judge_in_time
from anomaly.serve.launch import ServeOptions, serve
from anomaly.serve.numbers import text_of
from anomaly.serve.protocol import Inference, read_request, write_response
from anomaly.serve.workers import Deadline, Workers
from anomaly.statistics.calibration import calibrate
from tests.attacks.corpus import encoded
from tests.detector.test_file import changed, edit_card
from tests.support.serving import Service, serving

KNOWN = ["score", "p_value", "is_anomaly", "in_range", "heatmap"]


@pytest.fixture(scope="module")
def service(run: Path, pixel_run: Path, session_folder: Path) -> Iterator[Service]:
    with serving(session_folder / "serve.log", run, pixel_run) as found:
        yield found


@pytest.fixture(scope="module")
def strict(run: Path, session_folder: Path) -> Iterator[Service]:
    """A service that takes one small request at a time, from those with a key, for
    three seconds.
    """
    (session_folder / "keys").write_text("line 4d0f7c8e9b6a5f4e3d2c # the camera over line 4\n")
    limits = "--workers 1 --waiting 0 --timeout 3 --max-bytes 200000 --max-pixels 20000".split()
    with serving(
        session_folder / "strict.log", run, "--api-keys", session_folder / "keys", *limits
    ) as found:
        yield found


KEY = {"Authorization": "Bearer 4d0f7c8e9b6a5f4e3d2c"}


def files(parts: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((parts / "test").rglob("*.png"))]


def png(height: int, width: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(
        np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    ).save(file, "PNG")
    return file.getvalue()


# --- the plain route ------------------------------------------------------------------------------
def test_a_file_gets_the_verdict_that_the_scorer_gives(
    service: Service, run: Path, parts: Path
) -> None:
    scorer = Scorer(run)
    for body in files(parts)[:: len(files(parts)) // 8]:
        expected = scorer.score(body)
        answer = service.post("/score?detector=run&heatmap=true", body)
        assert answer.status == 200
        found = answer.json
        assert found.pop("score") == pytest.approx(expected.score, rel=1e-5)
        assert np.allclose(found.pop("heatmap"), expected.heatmap, rtol=1e-4)
        assert expected.box is not None and scorer.card.calibration is not None
        assert found == {
            "detector": scorer.card.identity,
            "status": expected.status,
            "threshold": float(scorer.card.calibration.threshold),
            "p_value": expected.p_value,
            "review_threshold": None,
            "is_anomaly": expected.is_anomaly,
            "result": expected.result,
            "width": expected.width,
            "height": expected.height,
            "box": dict(zip("xywh", expected.box, strict=True)),
            "area": expected.area,
            "defect_type": None,
            "type_score": None,
            "error": expected.error,
            "guaranteed_per": "image",
            "estimated_per": None,
        }


def test_the_type_of_a_known_defect_is_named(known_run: Path, known: Path, tmp_path: Path) -> None:
    body = sorted((known / "test" / "missing").iterdir())[2].read_bytes()
    expected = Scorer(known_run).score(body)
    assert expected.defect_type is not None and expected.type_scores is not None
    with serving(tmp_path / "serve.log", known_run) as service:
        found = service.post("/score", body).json
        assert found["defect_type"] == expected.defect_type
        assert found["type_score"] == pytest.approx(expected.type_score, abs=1e-4)
        name = known_run.name
        said = service.get(f"/v2/models/{name}").json
        assert said["parameters"]["defect_types"] == ["missing", "stain"]
        assert {"name": "type_scores", "datatype": "FP32", "shape": [-1, 2]} in said["outputs"]
        data = [base64.b64encode(body).decode()]
        images = {"name": "images", "shape": [1], "datatype": "BYTES", "data": data}
        outputs = {o["name"]: o for o in service.infer(name, inputs=[images]).json["outputs"]}
        assert outputs["type_scores"]["shape"] == [1, 2]
        assert np.allclose(outputs["type_scores"]["data"], expected.type_scores, atol=1e-4)
        schema = service.get("/openapi.json").json["components"]["schemas"]["ImageResult"]
        assert {"defect_type", "type_score"} <= set(schema["properties"])


def test_with_two_thresholds_only_what_passes_both_is_good(
    run: Path, parts: Path, tmp_path: Path
) -> None:
    two = tmp_path / "two.onnx"
    write_review_threshold(run, two, by="ann", review_rate=0.5, review_score=None)
    scorer, bodies = Scorer(two), files(parts)
    expected = [scorer.score(body) for body in bodies]
    kinds = [[r.result for r in expected].index(k) for k in ("flagged", "review", "not flagged")]
    review = scorer.card.calibration.review
    with serving(tmp_path / "serve.log", two) as service:
        for number in kinds:
            found = service.post("/score", bodies[number]).json
            assert found["result"] == expected[number].result
            assert found["is_anomaly"] == (found["result"] == "flagged")
            assert found["review_threshold"] == float(review.threshold)
        said = service.infer(
            "two",
            inputs=[
                {
                    "name": "images",
                    "shape": [len(kinds)],
                    "datatype": "BYTES",
                    "data": [base64.b64encode(bodies[number]).decode() for number in kinds],
                }
            ],
        ).json
        outputs = {output["name"]: output["data"] for output in said["outputs"]}
        assert outputs["is_anomaly"] == [True, True, False]  # it has no third value
        assert service.get("/v2/models/two").json["parameters"]["review"] == review.to_json()
        counted = service.get("/metrics").data.decode()
        assert 'anomaly_images_total{detector="two",result="review"} 2.0' in counted


@pytest.mark.parametrize(
    "path", ["/score/", "/v2/", "/v2/health/live/", "//score", "/score//", "/metrics/"]
)
def test_no_address_leads_to_another_host(service: Service, path: str) -> None:
    """A slash too many is no redirect, which would go wherever the request's Host says."""
    for method in ("GET", "POST"):
        answer = service.ask(
            method, path, b"x" if method == "POST" else None, {"Host": "evil.example"}
        )
        assert answer.status == 404 and "location" not in {name.lower() for name in answer.headers}


def test_a_form_does_as_well_and_httpx_sends_one(service: Service, parts: Path) -> None:
    import httpx

    body = files(parts)[0]
    with httpx.Client(trust_env=False) as client:
        answer = client.post(
            f"{service.url}/score", params={"detector": "run"}, files={"file": ("part.png", body)}
        )
    assert answer.json() == service.post("/score?detector=run", body).json


def test_what_is_wrong_is_said_in_one_line(service: Service) -> None:
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    for path, body, headers, status, message in (
        ("/score", b"x", {}, 422, "no detector named, one of run, pixel-run expected"),
        ("/score?detector=none", b"x", {}, 404, "'none' is not served here"),
        ("/score?detector=run", b"hello", {}, 422, "NOT INSPECTED: image: begins with b'hello'"),
        ("/score?detector=run", b"", {}, 422, "NOT INSPECTED"),
        ("/score?detector=run", b"--x--\r\n", form, 422, "a form without a file"),
        ("/score?detector=run", b"no form", form, 400, "a damaged form"),
        (
            "/score?detector=run",
            b"\x1f\x8b",
            {"Content-Encoding": "gzip"},
            415,
            "a compressed body",
        ),
        ("/score?heatmap=perhaps&detector=run", b"", {}, 422, "query.heatmap"),
        ("/v2/models/run/versions/7/infer", b"{}", {}, 404, "version '7' is not served"),
        ("/v2/health/live", b"", {}, 405, "Method Not Allowed"),
    ):
        answer = service.post(path, body, headers)
        assert (answer.status, message in answer.json["error"]) == (status, True), answer.data


def test_a_file_of_several_pages_is_not_inspected(service: Service) -> None:
    frames, file = [Image.new("L", (64, 64), grey) for grey in (10, 90)], io.BytesIO()
    frames[0].save(file, "TIFF", save_all=True, append_images=frames[1:])
    answer = service.post("/score?detector=run", file.getvalue())
    assert (answer.status, "2 pages or frames found, one expected" in answer.json["error"]) == (
        422,
        True,
    )


def tiff(*values: float) -> bytes:
    file = io.BytesIO()
    pixels = np.full((48, 48), 0.5, np.float32)
    pixels.ravel()[: len(values)] = values
    Image.fromarray(pixels).save(file, "TIFF")
    return file.getvalue()


def without_pixels(format: str) -> bytes:
    data = bytearray(png(8, 8) if format == "PNG" else encoded(Image.new("RGB", (8, 8)), "BMP"))
    at = 16 if format == "PNG" else 18
    data[at : at + 4] = bytes(4)
    return bytes(data)


FAULTS = {
    "NaN": (lambda: tiff(np.nan), "not finite"),
    "infinite": (lambda: tiff(np.inf), "not finite"),
    "minus infinite": (lambda: tiff(-np.inf, np.inf), "not finite"),
    "negative": (lambda: tiff(-1), "unsupported"),
    "above 65535": (lambda: tiff(1e30), "unsupported"),
    "zero wide PNG": (lambda: without_pixels("PNG"), None),
    "zero wide BMP": (lambda: without_pixels("BMP"), None),
    "cut short": (lambda: png(64, 64)[:500], "truncated"),
    "nothing": (lambda: b"", "empty"),
    "text": (lambda: b"hello", "not an image"),
    "GIF": (lambda: b"GIF89a" + bytes(20), None),
    "three pages": (
        lambda: encoded(
            Image.new("RGB", (48, 48)),
            "TIFF",
            save_all=True,
            append_images=[Image.new("RGB", (48, 48))] * 2,
        ),
        "several pages",
    ),
}


@pytest.mark.parametrize("what", FAULTS)
def test_an_image_that_is_none_is_the_clients_fault_on_every_route(
    service: Service, what: str
) -> None:
    make, kind = FAULTS[what]
    body = make()
    tensor = {
        "name": "images",
        "datatype": "BYTES",
        "shape": [1],
        "data": [base64.b64encode(body).decode()],
    }
    form = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        + body
        + b"\r\n--x--\r\n"
    )
    for answer in (
        service.post("/score?detector=run", body),
        service.post(
            "/score?detector=run&heatmap=true",
            form,
            {"Content-Type": "multipart/form-data; boundary=x"},
        ),
        service.infer("run", inputs=[tensor]),
    ):
        assert answer.status == 422, answer.data
        assert answer.json["error"].startswith("NOT INSPECTED: ")
        assert kind is None or answer.json["kind"] == kind


@pytest.mark.parametrize(
    "tensor",
    [
        {"datatype": "FP32"},
        {"datatype": 7},
        {"name": None},
        {"shape": "1"},
        {"shape": []},
        {"shape": [1, 2, 3]},
        {"shape": [0, 1, 1, 3]},
        {"shape": [1, 1, 1, 1]},
        {"shape": [1.5, 1, 1, 3]},
        {"shape": [[1], 1, 1, 3]},
        {"data": "abc"},
        {"data": {}},
        {"data": [[[[1, 2]]]]},
        {"data": [True, 2, 3]},
        {"data": ["1", 2, 3]},
        {"data": [None, 2, 3]},
        {"data": [-1, 2, 3]},
        {"data": [1e400, 2, 3]},
        {"data": [{}, 2, 3]},
        {"data": []},
        {"data": [[], [], []]},
        {"datatype": "BYTES", "shape": [1], "data": [1]},
        {"datatype": "BYTES", "shape": [1], "data": [["AAAA"]]},
        {"datatype": "BYTES", "shape": [2], "data": ["AAAA"]},
        {"parameters": 7},
        {"parameters": {"binary_data_size": "x"}},
        {"parameters": {"binary_data_size": -1}, "data": None},
    ],
    ids=str,
)
def test_a_tensor_of_another_kind_is_the_clients_fault(
    service: Service, tensor: dict[str, object]
) -> None:
    answer = service.infer("run", inputs=[{**GOOD, **tensor}])
    assert answer.status == 400, answer.data
    assert answer.json["error"]


@pytest.fixture(scope="module")
def picky(run: Path, session_folder: Path) -> Path:
    """A sound detector whose score is NaN for images that are white all over."""
    return changed(run, session_folder / "picky.onnx", lambda model: not_a_number(model, "score"))


def not_a_number(model: onnx.ModelProto, output: str) -> None:
    """Multiplies an output by x / x, with x = 255 less the darkest value of the image: 1, but NaN
    where that is white.
    """
    for node in model.graph.node:
        node.output[:] = ["before" if name == output else name for name in node.output]
        if not node.name.startswith("calibration."):  # which reads the score that the file gives
            node.input[:] = ["before" if name == output else name for name in node.input]
    constants = {
        "white": np.float32([255]),
        "all_axes": np.int64([1, 2, 3]),
        "new_axes": np.int64([1, 2]),
    }
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(value, name) for name, value in constants.items()
    )
    steps = [
        ("Cast", "images"),
        ("ReduceMin", "step0 all_axes"),
        ("Sub", "white step1"),
        ("Div", "step2 step2"),
    ]
    steps += [("Unsqueeze", "step3 new_axes")] if output == "heatmap" else []
    for number, (kind, inputs) in enumerate(steps):
        options = {"Cast": {"to": 1}, "ReduceMin": {"keepdims": 0}}.get(kind, {})
        model.graph.node.append(
            onnx.helper.make_node(kind, inputs.split(), [f"step{number}"], **options)
        )
    model.graph.node.append(
        onnx.helper.make_node("Mul", ["before", f"step{len(steps) - 1}"], [output])
    )


WHITE = np.full((64, 64, 3), 255, np.uint8)


def test_an_image_without_a_score_is_the_clients_fault_where_the_detector_is_sound(
    picky: Path, run: Path, parts: Path, tmp_path: Path
) -> None:
    blind = changed(run, tmp_path / "blind.onnx", lambda model: not_a_number(model, "heatmap"))
    with serving(tmp_path / "log", picky, blind) as service:
        for name in ("picky", "blind"):
            tensor = {
                "name": "images",
                "datatype": "UINT8",
                "shape": [1, *WHITE.shape],
                "data": WHITE.ravel().tolist(),
            }
            for answer in (
                service.post(f"/score?detector={name}", encoded(Image.fromarray(WHITE), "PNG")),
                service.infer(name, inputs=[tensor]),
            ):
                assert (answer.status, answer.json["kind"]) == (422, "not finite")
                assert (
                    "no finite score or heatmap for this image; its golden samples are right"
                    in answer.json["error"]
                )
            assert (
                service.post(f"/score?detector={name}&heatmap=true", files(parts)[0]).status == 200
            )


def test_an_image_without_a_score_is_the_servers_fault_where_the_detector_is_damaged(
    picky: Path, tmp_path: Path
) -> None:
    def damage(model: onnx.ModelProto) -> None:
        golden = json.loads(model.metadata_props[0].value)["golden"]
        edit_card(
            model,
            golden={
                **golden,
                "samples": [{**sample, "score": 1e6} for sample in golden["samples"]],
            },
        )

    shutil.copy(picky, tmp_path / "detector.onnx")
    scorer = Scorer(changed(tmp_path, tmp_path / "damaged.onnx", damage))
    found = judge_in_time(scorer, WHITE, Deadline(time.monotonic() + 100, 100))
    assert (found.status, STATUSES[found.kind or ""]) == ("error", 500)
    assert "a golden sample scores differently here" in (found.error or "")


def test_heatmaps_of_several_sizes_are_not_one_tensor() -> None:
    results = [Result("ok", score=0.1, heatmap=np.zeros((2, size), np.float32)) for size in (2, 3)]
    with pytest.raises(RequestError, match="images whose heatmaps differ in size found") as caught:
        write_response("d", "1", Inference(None, [], {"score": False, "heatmap": True}), results)
    assert caught.value.status == 422


@given(
    arrays(
        np.float32,
        st.tuples(st.integers(0, 4), st.integers(0, 4)),
        elements=st.floats(allow_nan=False, allow_infinity=False, width=32),
    )
)
def test_numbers_are_written_as_json_reads_them(values: np.ndarray) -> None:
    assert json.loads(bytes(text_of(values))) == values.tolist()
    assert json.loads(bytes(text_of(values.ravel()))) == values.ravel().tolist()


# --- limits ---------------------------------------------------------------------------------------
def test_it_keeps_its_limits(strict: Service) -> None:
    assert strict.post("/score", png(60, 60), KEY).status == 200
    assert strict.post("/score", bytes(200_001), KEY).status == 413
    answer = strict.post("/score", png(150, 150), KEY)
    assert (answer.status, answer.json["kind"]) == (422, "too large")


def test_a_body_of_unknown_length_is_cut_off(strict: Service) -> None:
    import httpx

    with httpx.Client(trust_env=False) as client:
        answer = client.post(
            f"{strict.url}/score", content=(bytes(50_000) for _ in range(10)), headers=KEY
        )
    assert answer.status_code == 413


def test_nobody_without_a_key(strict: Service) -> None:
    for headers in ({}, {"X-API-Key": "4d0f7c8e9b6a5f4e3d2d"}, {"Authorization": "Bearer "}):
        answer = strict.post("/score", b"", headers)
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert strict.get("/metrics").status == strict.get("/openapi.json").status == 401
    assert strict.ask("GET", "/v2", headers={"X-API-Key": "4d0f7c8e9b6a5f4e3d2c"}).status == 200
    assert strict.get("/v2/health/live").json == {"live": True}
    assert strict.get("/v2/health/ready").json == {"ready": True}


def test_when_it_is_full_it_says_so_and_a_slow_body_does_not_stay(strict: Service) -> None:
    head = (
        f"POST /score HTTP/1.1\r\nHost: x\r\nAuthorization: {KEY['Authorization']}\r\n"
        "Content-Length: 1000\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", strict.port), timeout=10) as slow:
        slow.sendall(head.encode())  # and no body: it takes the only place, for three seconds
        for _ in range(50):
            answer = strict.post("/score", png(8, 8), KEY)
            if answer.status != 200:
                break
        assert (answer.status, answer.headers["retry-after"]) == (429, "1")
        assert slow.recv(20).split()[1] == b"408"
    assert strict.post("/score", png(60, 60), KEY).status == 200


def test_what_takes_too_long_ends_in_time_and_keeps_its_place_until_it_has_ended() -> None:
    async def ask(workers: Workers, release: threading.Event) -> None:
        async def body() -> bytes:
            return b"x"

        def work(body: bytes, deadline: Deadline) -> None:
            release.wait(20)

        with pytest.raises(RequestError, match=r"not done within 0\.2 s") as caught:
            await workers.run(body, work)
        assert caught.value.status == 504
        with pytest.raises(RequestError, match="1 requests are inside already") as caught:
            await workers.run(body, work)
        assert caught.value.status == 429
        release.set()
        while workers.inside:
            await asyncio.sleep(0.01)
        assert await workers.run(body, lambda body, deadline: body) == b"x"

    workers = Workers(1, 0, 0.2)
    asyncio.run(ask(workers, threading.Event()))
    workers.close()


def test_between_two_images_the_time_is_looked_at() -> None:
    Deadline(time.monotonic() + 5, 5).check()
    with pytest.raises(RequestError, match="send fewer or smaller images"):
        Deadline(time.monotonic() - 1, 5).check()


# --- the Open Inference Protocol ------------------------------------------------------------------
def test_tritons_own_client_gets_the_scorers_numbers(
    service: Service, pixel_run: Path, parts: Path
) -> None:
    triton = pytest.importorskip("tritonclient.http")
    scorer, name = Scorer(pixel_run), "pixel-run"
    pixels = np.stack(
        [np.asarray(Image.open(io.BytesIO(body)).convert("RGB")) for body in files(parts)[:3]]
    )
    expected = scorer.score(list(pixels))
    with triton.InferenceServerClient(f"127.0.0.1:{service.port}") as client:
        assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(name)
        assert client.get_server_metadata()["name"] == "anomaly"
        metadata = client.get_model_metadata(name)
        assert [tensor["name"] for tensor in metadata["outputs"]] == list(scorer.outputs)
        assert metadata["versions"] == ["1"]
        for binary_in in (True, False):
            for wanted in (None, True, False):
                given = triton.InferInput("images", list(pixels.shape), "UINT8")
                given.set_data_from_numpy(pixels, binary_data=binary_in)
                outputs = (
                    wanted
                    if wanted is None
                    else [triton.InferRequestedOutput(n, wanted) for n in scorer.outputs]
                )
                answer = client.infer(name, [given], outputs=outputs, request_id="7")
                assert answer.get_response()["id"] == "7"
                same_verdicts(answer, expected)
        encoded = triton.InferInput("images", [3], "BYTES")
        encoded.set_data_from_numpy(np.array(files(parts)[:3], dtype=np.object_), binary_data=True)
        same_verdicts(client.infer(name, [encoded]), expected)
        with pytest.raises(triton.InferenceServerException, match="asked for, one of score"):
            client.infer(name, [given], outputs=[triton.InferRequestedOutput("nothing")])


def same_verdicts(answer: object, expected: list[Result]) -> None:
    found = {name: answer.as_numpy(name) for name in [*KNOWN, "reconstruction"]}  # type: ignore[attr-defined]
    assert np.allclose(found["score"], [r.score for r in expected], rtol=1e-5)
    assert np.allclose(found["p_value"], np.array([r.p_value for r in expected], np.float32))
    assert found["is_anomaly"].tolist() == [r.is_anomaly is not False for r in expected]
    assert found["in_range"].tolist() == [r.status == "ok" for r in expected]
    assert np.allclose(found["heatmap"], [r.heatmap for r in expected], rtol=1e-3, atol=1e-5)
    assert (
        np.abs(found["reconstruction"].astype(int) - [r.reconstruction for r in expected]).max()
        <= 1
    )


def test_files_in_json_are_base64(service: Service, run: Path, parts: Path) -> None:
    body = files(parts)[0]
    tensor = {
        "name": "images",
        "datatype": "BYTES",
        "shape": [1],
        "data": [base64.b64encode(body).decode()],
    }
    answer = service.infer("run", inputs=[tensor], outputs=[{"name": "score"}])
    assert answer.json["outputs"][0]["data"] == pytest.approx(
        [Scorer(run).score(body).score], rel=1e-5
    )


@given(
    st.integers(1, 3),
    st.integers(1, 5),
    st.integers(1, 5),
    st.randoms(use_true_random=False),
    st.booleans(),
    st.booleans(),
)
def test_json_and_bytes_say_the_same(
    n: int, h: int, w: int, random: object, nested: bool, encoded: bool
) -> None:
    pixels = np.frombuffer(random.randbytes(n * h * w * 3), np.uint8).reshape(n, h, w, 3)  # type: ignore[attr-defined]
    tensor = {"name": "images", "datatype": "UINT8", "shape": [n, h, w, 3]}
    plain = json.dumps(
        {"inputs": [{**tensor, "data": (pixels if nested else pixels.ravel()).tolist()}]}
    ).encode()
    raw = pixels.tobytes()
    if encoded:
        tensor |= {"datatype": "BYTES", "shape": [n]}
        plain = json.dumps(
            {
                "inputs": [
                    {**tensor, "data": [base64.b64encode(one.tobytes()).decode() for one in pixels]}
                ]
            }
        ).encode()
        raw = b"".join(len(one.tobytes()).to_bytes(4, "little") + one.tobytes() for one in pixels)
    head = json.dumps(
        {"inputs": [{**tensor, "parameters": {"binary_data_size": len(raw)}}]}
    ).encode()
    one, other = read_request(plain, None, KNOWN), read_request(head + raw, str(len(head)), KNOWN)
    assert (
        [bytes(i) for i in one.images]
        == [bytes(i) for i in other.images]
        == [image.tobytes() for image in pixels]
    )
    assert one.binary == other.binary == dict.fromkeys(KNOWN, False)


GOOD = {"name": "images", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, 2, 3]}
REFUSED = {
    "no JSON": (b"{", None, "not an inference request"),
    "another input": (json.dumps({"inputs": [{**GOOD, "name": "x"}]}), None, "inputs.0.name"),
    "floats": (
        json.dumps({"inputs": [{**GOOD, "data": [0.5, 1, 2]}]}),
        None,
        "whole numbers from 0 to 255",
    ),
    "too large a number": (
        json.dumps({"inputs": [{**GOOD, "data": [256, 1, 2]}]}),
        None,
        "a pixel value of 256 found, .* from 0 to 255 expected",
    ),
    "below zero": (
        json.dumps({"inputs": [{**GOOD, "data": [255, 1, -1]}]}),
        None,
        "a pixel value of -1 found, .* 0 to 255",
    ),
    "a very long number": (
        json.dumps({"inputs": [{**GOOD, "data": [0, 7 * 10**70, 2]}]}),
        None,
        r"a pixel value of 70000000000000000000\.\.\. \(71 digits\) found, .* 0 to 255",
    ),
    "too large and no number": (
        json.dumps({"inputs": [{**GOOD, "data": ["300", 1, 2]}]}),
        None,
        "data of another kind",
    ),
    "a huge number": (
        json.dumps({"inputs": [{**GOOD, "data": [10**400, 1, 2]}]}),
        None,
        "whole numbers|not an inference",
    ),
    "ragged": (json.dumps({"inputs": [{**GOOD, "data": [[1], [2, 3]]}]}), None, "ragged"),
    "too few": (json.dumps({"inputs": [{**GOOD, "data": [1, 2]}]}), None, "2 values found"),
    "a shape that overflows": (
        json.dumps({"inputs": [{**GOOD, "shape": [1, 2**62, 2**62, 3]}]}),
        None,
        "3 values found",
    ),
    "one value": (
        json.dumps({"inputs": [{**GOOD, "shape": [256, 2**31, 2**31, 3], "data": [7]}]}),
        None,
        "^1 value found",
    ),
    "one value in lists": (
        json.dumps({"inputs": [{**GOOD, "data": [[[[7]]]]}]}),
        None,
        "^1 value found",
    ),
    "no value": (json.dumps({"inputs": [{**GOOD, "data": []}]}), None, "^0 values found"),
    "a negative shape": (
        json.dumps({"inputs": [{**GOOD, "shape": [-1, 1, 1, 3]}]}),
        None,
        r"\[N, H, W, 3\]",
    ),
    "no data": (json.dumps({"inputs": [{**GOOD, "data": None}]}), None, "without data"),
    "bytes that are not there": (
        json.dumps({"inputs": [{**GOOD, "data": None, "parameters": {"binary_data_size": 3}}]}),
        None,
        "binary_data_size 3",
    ),
    "a length beyond the end": (json.dumps({"inputs": [GOOD]}), "100000", "at most"),
    "a length that is none": (json.dumps({"inputs": [GOOD]}), "-1", "at most"),
    "no base64": (
        json.dumps({"inputs": [{**GOOD, "datatype": "BYTES", "shape": [1], "data": ["?"]}]}),
        None,
        "base64",
    ),
    "too many files": (
        json.dumps(
            {"inputs": [{**GOOD, "datatype": "BYTES", "shape": [257], "data": ["AAAA"] * 257}]}
        ),
        None,
        "1 to 256",
    ),
    "another output": (
        json.dumps({"inputs": [GOOD], "outputs": [{"name": "x"}]}),
        None,
        "output 'x' asked for",
    ),
    "deep": ('{"inputs":' + "[" * 100_000, None, "not an inference request"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_bad_inference_request_is_refused(what: str) -> None:
    body, length, message = REFUSED[what]
    with pytest.raises(RequestError, match=message) as caught:
        read_request(body if isinstance(body, bytes) else body.encode(), length, KNOWN)
    assert caught.value.status == 400 and "\n" not in str(caught.value)


def test_bytes_that_are_cut_short_are_refused() -> None:
    for raw in (b"\x05\0\0\0abc", b"\x01\0"):
        tensor = {
            "name": "images",
            "datatype": "BYTES",
            "shape": [1],
            "parameters": {"binary_data_size": len(raw)},
        }
        head = json.dumps({"inputs": [tensor]}).encode()
        with pytest.raises(RequestError, match="cut short"):
            read_request(head + raw, str(len(head)), KNOWN)


def test_what_was_not_judged_is_never_good() -> None:
    outside = Result("outside", score=0.1, p_value=0.9, is_anomaly=None)
    body, _ = write_response(
        "d", "1", Inference(None, [], {"is_anomaly": False, "in_range": False}), [outside]
    )
    assert [output["data"] for output in json.loads(body)["outputs"]] == [[True], [False]]


def test_schemathesis_finds_nothing(service: Service, tmp_path: Path) -> None:
    pytest.importorskip("schemathesis")
    (tmp_path / "schemathesis.toml").write_text(
        '[parameters]\n"path.name" = "run"\n"path.version" = "1"\n"query.detector" = "run"\n'
    )
    command = [
        Path(sys.executable).with_name("schemathesis"),
        "run",
        f"{service.url}/openapi.json",
        "--max-examples",
        "10",
    ]
    # Which bytes are an image is beyond a schema, so a body that fits it may be refused.
    command += [
        "--checks",
        "all",
        "--exclude-checks",
        "positive_data_acceptance",
        "--seed",
        "1",
        "--phases",
        "examples,coverage,fuzzing",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-6000:]
    assert "Tested: 11" in done.stdout and "Unresolvable" not in done.stdout, done.stdout[-3000:]


# --- metrics and log ------------------------------------------------------------------------------
def test_prometheus_reads_the_metrics(service: Service, parts: Path) -> None:
    def values() -> dict[tuple[str, ...], float]:
        families = text_string_to_metric_families(service.get("/metrics").data.decode())
        return {
            (s.name, *sorted(s.labels.values())): s.value
            for family in families
            for s in family.samples
        }

    before = values()
    for body in files(parts):
        service.post("/score?detector=run", body)
    after = values()
    keys = {
        verdict: ("anomaly_images_total", *sorted(("run", verdict)))
        for verdict in ("flagged", "not flagged", "outside")
    }
    verdicts = {verdict: after.get(key, 0) - before.get(key, 0) for verdict, key in keys.items()}
    assert sum(verdicts.values()) == len(files(parts))
    assert verdicts["flagged"] >= 1 and verdicts["not flagged"] >= 10
    assert 0 < after["anomaly_flagged_share", "run"] <= 1
    assert after["anomaly_guaranteed_rate", "run"] == pytest.approx(1 / 61)
    assert after["anomaly_drift_evidence", "run"] >= 0
    assert after["anomaly_requests_total", "/score", "200", "run"] >= len(files(parts))
    assert after["anomaly_requests_inside",] == 0


def test_every_request_has_its_line_of_json(service: Service, parts: Path) -> None:
    number = "from-the-line:7"
    answer = service.post("/score?detector=run", files(parts)[0], {"X-Request-ID": number})
    assert answer.headers["x-request-id"] == number
    assert (
        len(service.post("/score", b"", {"X-Request-ID": 'no " id'}).headers["x-request-id"]) == 32
    )
    time.sleep(0.2)
    lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    mine = [line for line in lines if line.get("request") == number]
    assert len(mine) == 1
    assert (
        mine[0].items()
        >= {"code": 200, "detector": "run", "images": 1, "bytes": len(files(parts)[0])}.items()
    )
    assert mine[0]["ms"] >= mine[0]["wait_ms"] >= 0


@pytest.mark.parametrize("upgrade", ["websocket", "h2c", "TLS/1.0"])
def test_a_client_that_would_rather_speak_another_protocol_logs_no_hint(
    upgrade: str, run: Path, tmp_path: Path
) -> None:
    with serving(tmp_path / "log", run) as service:
        answer = service.ask(
            "GET", "/v2/health/live", headers={"Connection": "Upgrade", "Upgrade": upgrade}
        )
        assert answer.status == 200
    lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    assert [line["message"] for line in lines] in ([], ["request"]), lines


# --- reload and shutdown --------------------------------------------------------------------------
def test_a_recalibrated_detector_comes_in_without_a_lost_request(
    run: Path, parts: Path, tmp_path: Path
) -> None:
    shutil.copy(run / "detector.onnx", tmp_path / "line.onnx")
    found: list[tuple[int, str]] = []
    done = threading.Event()
    bodies = files(parts)

    def ask(service: Service) -> None:
        while not done.is_set():
            answer = service.post("/score", bodies[len(found) % len(bodies)])
            found.append((answer.status, answer.json.get("detector", "")))

    with serving(tmp_path / "log", tmp_path / "line.onnx") as service:
        threads = [threading.Thread(target=ask, args=(service,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        calibration = calibrate(np.linspace(0, 1, 200, dtype=np.float32), 0.05)
        recalibrate(
            run,
            calibration,
            tmp_path / "line.onnx",
            CalibrationImages(highest=["a"], count=200, groups=200),
            version="2",
        )
        waited = time.monotonic()
        while not found or not found[-1][1].startswith("run@2"):
            assert time.monotonic() - waited < 20
            time.sleep(0.05)
        (tmp_path / "line.onnx").write_bytes(b"not a detector")
        while "the old detector stays" not in service.log.read_text():
            assert time.monotonic() - waited < 30
            time.sleep(0.05)
        done.set()
        for thread in threads:
            thread.join()
        assert service.post("/score", bodies[0]).json["detector"].startswith("run@2")
        metrics = service.get("/metrics").data.decode()
        assert 'anomaly_reloads_total{detector="line",outcome="loaded"} 1.0' in metrics
        assert 'anomaly_reloads_total{detector="line",outcome="failed"} 1.0' in metrics
    assert {status for status, _ in found} == {200}
    assert {identity[:5] for _, identity in found} == {"run@1", "run@2"}


def test_it_finishes_what_it_took_and_stops(run: Path, tmp_path: Path) -> None:
    answers: list[int] = []
    with serving(tmp_path / "log", run, "--workers", "1") as service:
        body = png(2000, 2000)
        threads = [
            threading.Thread(target=lambda: answers.append(service.post("/score", body).status))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        while "anomaly_requests_inside 4.0" not in service.get("/metrics").data.decode():
            time.sleep(0.01)
        assert service.stop() == 0
        for thread in threads:
            thread.join()
        with pytest.raises(ConnectionError):
            service.get("/v2/health/live")
    assert answers == [200] * 4


# --- keys and start -------------------------------------------------------------------------------
def test_keys_are_read_and_compared(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# clients\na 0123456789abcdef\n\nb fedcba9876543210 # the other\n")
    keys = read_keys(file)
    assert keys and not Keys()
    assert keys.holder({"authorization": "Bearer fedcba9876543210"}) == "b"
    assert keys.holder({"x-api-key": "0123456789abcdef"}) == "a"
    assert keys.holder({"authorization": "Basic 0123456789abcdef"}) is keys.holder({}) is None


@pytest.mark.parametrize(
    "text",
    ["", "a short", "a 0123456789abcdef\na 0123456789abcdef1", "a 0123456789abcdef x", "only"],
)
def test_a_bad_file_of_keys_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(text)
    with pytest.raises(AnomalyError, match="NAME KEY"):
        read_keys(tmp_path / "keys")


def test_what_cannot_be_served_is_said_at_the_start(run: Path) -> None:
    with pytest.raises(AnomalyError, match="two detectors named 'run'"):
        Detectors([run, run])
    with pytest.raises(AnomalyError, match=r"0\.0\.0\.0 can be reached from other machines"):
        serve([run], ServeOptions("0.0.0.0"))
    with socket.socket() as taken, pytest.raises(AnomalyError, match="cannot be listened on"):
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        serve([run], ServeOptions(port=taken.getsockname()[1]))
    assert [
        is_own(host) for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "example.com")
    ] == [True] * 3 + [False] * 2
