"""Attribution: how much each unit at a tap, or each entry of the input, has to do with a target.

The input is one more tap: each method takes ``at=":input"`` as it takes any layer. Every method is
``method(model, inputs, *, target=None, at=":input", ...)``, ends in the keywords of `gradtap.gradients`, and returns a
mapping from address to attribution.
"""

from gradtap.attribution.activation_patching import attribution_patching
from gradtap.attribution.attention import attention_relevance
from gradtap.attribution.deep_lift import deep_lift
from gradtap.attribution.expected import expected_gradients
from gradtap.attribution.gradient_maps import grad_cam, grad_cam_plus_plus, hires_cam, layer_cam, xgrad_cam
from gradtap.attribution.gradient_methods import activation_x_gradient, channel_importance, saliency
from gradtap.attribution.guided import deconvnet, guided_backprop, guided_grad_cam
from gradtap.attribution.lrp import lrp
from gradtap.attribution.paths import conductance, integrated_gradients, internal_influence
from gradtap.attribution.perturbation import occlusion, rise
from gradtap.attribution.score_maps import ablation_cam, score_cam
from gradtap.attribution.smooth import smooth_grad
from gradtap.staged.baselines import at_tap

__all__ = [
    "ablation_cam",
    "activation_x_gradient",
    "at_tap",
    "attention_relevance",
    "attribution_patching",
    "channel_importance",
    "conductance",
    "deconvnet",
    "deep_lift",
    "expected_gradients",
    "grad_cam",
    "grad_cam_plus_plus",
    "guided_backprop",
    "guided_grad_cam",
    "hires_cam",
    "integrated_gradients",
    "internal_influence",
    "layer_cam",
    "lrp",
    "occlusion",
    "rise",
    "saliency",
    "score_cam",
    "smooth_grad",
    "xgrad_cam",
]
