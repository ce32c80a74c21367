"""What two images or maps differ by -> a heatmap; a heatmap -> one score. Higher = more anomalous, everywhere.

All of it is differentiable (it is also the loss) and exportable to ONNX: no data-dependent shapes or branches.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SHARE = 0.05  # of a heatmap's locations, the hottest, make the score


def squared_error(x: Tensor, y: Tensor) -> Tensor:
    """Returns the mean over channels of the squared difference, (N, H, W), from two (N, C, H, W) of any unit."""
    return ((x - y) ** 2).mean(1)


def ssim_error(x: Tensor, y: Tensor) -> Tensor:
    """Returns 1 - structural similarity, (N, H, W) from 0 (alike) to 2, from two (N, C, H, W) of pixels in 0..1.

    Wang et al., "Image quality assessment: from error visibility to structural similarity" (IEEE TIP 2004), equation
    13, under their Gaussian window of 11 pixels, sigma 1.5; mean over channels; as a reconstruction loss and anomaly
    score: Bergmann et al. (VISAPP 2019).
    """
    c1, c2 = 0.01**2, 0.03**2
    mean_x, mean_y = gaussian_window(x), gaussian_window(y)
    # Variances of the differences from the local mean would need a second window; in 0..1 this form is exact enough.
    var_x = gaussian_window(x * x) - mean_x**2
    var_y = gaussian_window(y * y) - mean_y**2
    covariance = gaussian_window(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (var_x + var_y + c2)
    return (1 - luminance * structure).mean(1)


def gaussian_window(x: Tensor, side: int = 11, sigma: float = 1.5) -> Tensor:
    """Returns x (N, C, H, W) averaged under a Gaussian window, edges repeated, by two passes of one dimension."""
    line = torch.arange(side, dtype=x.dtype, device=x.device) - side // 2
    window = torch.exp(-(line**2) / (2 * sigma**2))
    window = (window / window.sum()).expand(x.shape[1], 1, side)
    half = side // 2
    x = F.conv2d(F.pad(x, (0, 0, half, half), mode="replicate"), window[:, :, :, None], groups=x.shape[1])
    return F.conv2d(F.pad(x, (half, half, 0, 0), mode="replicate"), window[:, :, None, :], groups=x.shape[1])


def gradient_similarity_error(x: Tensor, y: Tensor, scales: int = 4) -> Tensor:
    """Returns 1 - gradient magnitude similarity, mean over scales, (N, H, W) in 0..1, from two (N, C, H, W) in 0..1.

    GMS: Xue et al., "Gradient magnitude similarity deviation" (IEEE TIP 2014), equation 4, its constant 170 scaled from
    0..255 to 0..1; on four scales and as an anomaly map: Zavrtanik et al., "Reconstruction by inpainting for visual
    anomaly detection" (Pattern Recognition 2021), equation 3. It sees structure, not brightness or colour. Scales that
    would be smaller than 8 pixels a side are left out.
    """
    c = 170 / 255**2
    size = (x.shape[2], x.shape[3])
    x, y = x.mean(1, keepdim=True), y.mean(1, keepdim=True)
    errors = []
    for scale in range(scales):
        if scale and min(x.shape[2:]) < 16:
            break
        if scale:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        gx, gy = gradient_magnitude(x), gradient_magnitude(y)
        error = 1 - (2 * gx * gy + c) / (gx**2 + gy**2 + c)
        errors.append(F.interpolate(error, size, mode="bilinear", align_corners=False) if scale else error)
    return torch.cat(errors, 1).mean(1)


def gradient_magnitude(x: Tensor) -> Tensor:
    """Returns the length of the Prewitt gradient of x (N, 1, H, W), edges repeated."""
    line = torch.tensor([1.0, 0.0, -1.0], dtype=x.dtype, device=x.device) / 3
    kernels = torch.stack([line.expand(3, 3), line.expand(3, 3).T])[:, None]  # (2, 1, 3, 3)
    gradient = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernels)
    # The square root's slope at 0 is infinite: without the small number a flat image would make the gradient NaN. Not
    # smaller: torch's exporter takes 1e-8 for zero and leaves it out.
    return torch.sqrt((gradient**2).sum(1, keepdim=True) + 1e-6)


ERRORS = {"l2": squared_error, "ssim": ssim_error, "gradient": gradient_similarity_error}


def pool(heatmap: Tensor, share: float = SHARE) -> Tensor:
    """Returns the score (N,): the mean of the hottest ``share`` of a heatmap (N, h, w), at least of one location.

    A hotter heatmap never scores lower.
    """
    flat = heatmap.flatten(1)
    return flat.topk(max(1, round(share * flat.shape[1])), dim=1).values.mean(1)
