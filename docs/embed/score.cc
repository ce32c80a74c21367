// A verdict on each image (PPM, 8 bits) in C++:  score detector.onnx IMAGE...
// g++ -std=c++17 -I INCLUDE score.cc -o score LIBRARY     (ONNX Runtime's headers, and libonnxruntime.so of the same or a newer version)
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <vector>

#include "onnxruntime_cxx_api.h"

int main(int count, char** arguments) {
  Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "anomaly");
  Ort::SessionOptions options;
  options.AddConfigEntry("session.intra_op.allow_spinning", "0");
  Ort::Session session(env, arguments[1], options);
  auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const char* inputs[] = {"images"};
  const char* outputs[] = {"score", "is_anomaly", "in_range"};
  for (int i = 2; i < count; ++i) {
    std::ifstream file(arguments[i], std::ios::binary);
    std::string kind;
    int64_t width, height, most;
    file >> kind >> width >> height >> most;
    file.get();  // the line's end
    std::vector<uint8_t> pixels(height * width * 3);  // RGB, row by row
    if (kind != "P6" || most != 255 || !file.read(reinterpret_cast<char*>(pixels.data()), pixels.size())) return 1;
    const int64_t shape[] = {1, height, width, 3};
    auto images = Ort::Value::CreateTensor<uint8_t>(memory, pixels.data(), pixels.size(), shape, 4);
    auto found = session.Run(Ort::RunOptions{}, inputs, &images, 1, outputs, 3);
    // Unlike the training images: the verdict does not count, and the part is not good.
    bool outside = !*found[2].GetTensorData<bool>(), flagged = *found[1].GetTensorData<bool>();
    std::printf("%s %.9g %s\n", arguments[i], *found[0].GetTensorData<float>(), outside ? "outside" : flagged ? "flagged" : "passed");
  }
}
