"""Curvature matrices by definition: whole Jacobians and second derivatives of plain loops, in float64."""

from __future__ import annotations

import torch
from torch.func import functional_call
from torch.utils._pytree import tree_flatten, tree_unflatten

from analysis.local import Part


def model_at(problem, theta, buffers):
    """A function of theta [P] and inputs: predictions in task order."""
    module = problem.module(theta, buffers).eval()
    constants = dict(module.named_buffers())

    def predict(whole, inputs):
        parameters = {s.name: whole[s.span].reshape(s.shape) for s in problem.layout.slots}
        output = functional_call(module, {**parameters, **constants}, (inputs,))
        return [output] if isinstance(output, torch.Tensor) else [output[name] for name in problem.names]

    return predict


def positions(problem, subset):
    part = Part.of(problem.layout, subset)
    return torch.cat([torch.arange(span.start, span.stop) for span in part.spans])


def mean_loss(problem, theta, buffers, weights):
    """sum_t w_t mean_n loss as a function of theta [P]."""
    predict = model_at(problem, theta, buffers)
    data = problem.evaluation

    def loss(whole):
        parts = predict(whole, data.inputs)
        rows = zip(weights, problem.tasks, parts, data.targets, strict=True)
        return sum(w * task.loss(part, target).mean() for w, task, part, target in rows if w)

    return loss


def hessian(problem, theta, buffers, weights):
    """[P, P]"""
    return torch.autograd.functional.hessian(mean_loss(problem, theta, buffers, weights), theta).detach()


def gradient(problem, theta, buffers, weights):
    """[P]"""
    return torch.autograd.functional.jacobian(mean_loss(problem, theta, buffers, weights), theta).detach()


def gauss_newton(problem, theta, buffers, weights):
    """[P, P], example by example: J' H J with J and H as matrices."""
    predict = model_at(problem, theta, buffers)
    size, count = len(theta), len(problem.evaluation)
    total = torch.zeros(size, size, dtype=theta.dtype)
    for n in range(count):
        one = problem.evaluation[n : n + 1]
        for t, weight in enumerate(weights):
            _, spec = tree_flatten(predict(theta, one.inputs)[t])
            shapes = [leaf.shape for leaf in tree_flatten(predict(theta, one.inputs)[t])[0]]

            def flat(whole, one=one, t=t):
                return torch.cat([leaf.reshape(-1) for leaf in tree_flatten(predict(whole, one.inputs)[t])[0]])

            def loss(values, one=one, t=t, spec=spec, shapes=shapes):
                parts = values.split([s.numel() for s in shapes])
                leaves = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
                return problem.tasks[t].loss(tree_unflatten(leaves, spec), one.targets[t]).sum()

            jacobian = torch.autograd.functional.jacobian(flat, theta)
            total += weight * jacobian.T @ torch.autograd.functional.hessian(loss, flat(theta).detach()) @ jacobian
    return total / count


def fisher(problem, theta, buffers, weights):
    """[P, P], the mean of outer products of every example's gradient of the weighted loss."""
    predict = model_at(problem, theta, buffers)
    rows = []
    for n in range(len(problem.evaluation)):
        one = problem.evaluation[n : n + 1]

        def loss(whole, one=one):
            parts = predict(whole, one.inputs)
            each = zip(weights, problem.tasks, parts, one.targets, strict=True)
            return sum(w * task.loss(part, target).sum() for w, task, part, target in each)

        rows.append(torch.autograd.functional.jacobian(loss, theta))
    g = torch.stack(rows)
    return g.T @ g / len(g)
