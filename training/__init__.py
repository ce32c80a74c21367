"""Training: fits a generative model on normal images, calibrates it and exports one ONNX file.
Needs torch.
"""
