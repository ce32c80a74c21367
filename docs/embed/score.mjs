// A verdict on each image (PPM, 8 bits) in Node:  npm install onnxruntime-node && node score.mjs detector.onnx IMAGE...
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
const ort = createRequire(process.cwd() + "/")("onnxruntime-node");

async function readPpm(path) {
  const file = await readFile(path);
  const [head, width, height] = /^P6\n(\d+) (\d+)\n255\n/.exec(file.toString("latin1", 0, 40));
  const pixels = new Uint8Array(file.subarray(head.length)); // RGB, row by row
  return new ort.Tensor("uint8", pixels, [1, +height, +width, 3]);
}

const [detector, ...images] = process.argv.slice(2);
const session = await ort.InferenceSession.create(detector, { executionProviders: ["cpu"] });
for (const path of images) {
  const found = await session.run({ images: await readPpm(path) }, ["score", "is_anomaly", "in_range"]);
  // Unlike the training images: the verdict does not count, and the part is not good.
  const verdict = !found.in_range.data[0] ? "outside" : found.is_anomaly.data[0] ? "flagged" : "passed";
  console.log(path, found.score.data[0], verdict);
}
