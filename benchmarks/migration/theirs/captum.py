"""Captum's lines, on the same networks in torch: their ReLUs are modules of their own, and channels come first."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

VERSIONS = ("captum", "torch", "numpy")


def saliency(model, images):
    from captum.attr import InputXGradient, Saliency

    magnitudes = Saliency(model).attribute(images, target=3)
    slopes = Saliency(model).attribute(images, target=3, abs=False)
    products = InputXGradient(model).attribute(images, target=3)
    return _last(magnitudes, slopes, products)


def logits(model, images):
    from captum.attr import Saliency

    model.scores = torch.nn.Identity()
    slopes = Saliency(model).attribute(images, target=3, abs=False)
    return _last(slopes)


def grad_cam(model, images):
    from captum.attr import LayerAttribution, LayerGradCam

    plain = LayerGradCam(model, model.relu3).attribute(images, target=3)
    positive = LayerGradCam(model, model.relu3).attribute(images, target=3, relu_attributions=True)
    maps = LayerAttribution.interpolate(positive, (32, 32))
    return _last(plain, positive, maps)


def integrated_gradients(model, images):
    from captum.attr import IntegratedGradients

    explainer = IntegratedGradients(model)
    values, deltas = explainer.attribute(images, target=3, n_steps=50, return_convergence_delta=True)
    trapezoid = explainer.attribute(images, target=3, n_steps=50, method="riemann_trapezoid")
    return (*_last(values), deltas.detach().numpy(), *_last(trapezoid))


def beside_skip(skip, images):
    from captum.attr import LayerIntegratedGradients

    explainer = LayerIntegratedGradients(skip, skip.relu2)
    values, deltas = explainer.attribute(images, target=3, n_steps=50, return_convergence_delta=True)
    return (*_last(values), deltas.detach().numpy())


def conductance(model, images):
    from captum.attr import LayerConductance

    explainer = LayerConductance(model, model.relu2)
    values, deltas = explainer.attribute(images, target=3, n_steps=50, return_convergence_delta=True)
    return (*_last(values), deltas.detach().numpy())


def neuron(model, images):
    from captum.attr import NeuronGradient

    slopes = NeuronGradient(model, model.relu3).attribute(images, (5, 8, 9))
    return _last(slopes)


def smooth(model, images):
    from captum.attr import NoiseTunnel, Saliency

    tunnel = NoiseTunnel(Saliency(model))
    magnitudes = tunnel.attribute(images, nt_samples=400, stdevs=0.1, target=3)
    slopes = tunnel.attribute(images, nt_samples=400, stdevs=0.1, target=3, abs=False)
    return _last(magnitudes, slopes)


def by_rules(model, images):
    from captum.attr import DeepLift, GuidedBackprop

    guided = GuidedBackprop(model).attribute(images, target=3)
    model.scores = torch.nn.Identity()
    lifted, deltas = DeepLift(model).attribute(images, target=3, return_convergence_delta=True)
    model.pool.register_forward_pre_hook(lambda module, given: (given[0].clone(),))
    copied, small = DeepLift(model).attribute(images, target=3, return_convergence_delta=True)
    return (*_last(guided, lifted), deltas.detach().numpy(), *_last(copied), small.detach().numpy())


def functions(written, images):
    from captum.attr import DeepLift, InputXGradient

    lifted = DeepLift(written).attribute(images, target=3)
    products = InputXGradient(written).attribute(images, target=3)
    return _last(lifted, products)


def twice(shared, images):
    from captum.attr import LayerGradientXActivation

    products = LayerGradientXActivation(shared, shared.conv3).attribute(images, target=3)
    return _last(products)


class _Network(torch.nn.Module):
    """The network of the pages."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        nn, self.kind, self.width = torch.nn, kind, 8 if kind == "twice" else 16
        self.conv1, self.relu1 = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()
        self.conv2, self.relu2 = nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.conv3, self.relu3 = nn.Conv2d(8, self.width, 3, padding=1), nn.ReLU()
        self.logits, self.scores = nn.Linear(self.width, 10), nn.Softmax(dim=1)

    def forward(self, photo: torch.Tensor) -> torch.Tensor:
        x = one = self.relu1(self.conv1(photo))
        if self.kind == "functions":
            x = torch.relu(self.conv2(torch.relu(self.conv1(photo))))
            x = torch.relu(self.conv3(torch.nn.functional.max_pool2d(x, 2)))
            return self.logits(x.mean((2, 3)))
        if self.kind == "twice":
            x = torch.relu(self.conv3(torch.relu(self.conv3(self.pool(x)))))
        else:
            x = self.relu2(self.conv2(x))
            x = one + x if self.kind == "skip" else x
            x = self.relu3(self.conv3(self.pool(x)))
        return self.scores(self.logits(x.mean((2, 3))))


def _network(folder: str, kind: str) -> torch.nn.Module:
    model = _Network(kind).eval()
    with np.load(f"{folder}/{'plain' if kind == 'functions' else kind}_weights.npz") as weights, torch.no_grad():
        for name in weights.files:
            layer, _, which = name.rpartition("_")
            value = torch.from_numpy(weights[name])
            if which == "kernel":
                value = value.permute(3, 2, 0, 1) if value.ndim == 4 else value.T
            getattr(model, layer).get_parameter("weight" if which == "kernel" else "bias").copy_(value)
    return model


def _last(*found: Any) -> tuple[np.ndarray, ...]:
    """Channels last, as Keras has them."""
    return tuple(each.detach().permute(0, 2, 3, 1).numpy() for each in found)


def _given(folder: str, name: str) -> dict[str, Any]:
    torch.manual_seed(0)
    networks = {"model": "plain", "skip": "skip", "shared": "twice", "written": "functions"}
    images = torch.from_numpy(np.load(f"{folder}/images.npy")).permute(0, 3, 1, 2).contiguous()
    return {argument: _network(folder, kind) for argument, kind in networks.items()} | {"images": images}
