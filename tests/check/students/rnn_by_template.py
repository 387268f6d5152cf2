"""A student's solution of task 1 in NumPy, with the signatures of the templates."""

import numpy as np


def rnn(X, W_xh, W_hh, b_h, H_0):
    T = X.shape[0]
    H = np.zeros((T, X.shape[1], W_hh.shape[0]))
    h = H_0
    for t in range(T):
        h = np.tanh(X[t] @ W_xh + h @ W_hh + b_h)
        H[t] = h
    return H


def rnn_backward(grad_H, X, W_xh, W_hh, b_h, H_0):
    H = rnn(X, W_xh, W_hh, b_h, H_0)
    T = len(X)
    dW_xh = np.zeros_like(W_xh)
    dW_hh = np.zeros_like(W_hh)
    db = np.zeros_like(b_h)
    dX = np.zeros_like(X)
    delta = np.zeros_like(H_0)  # delta_{T+1} = 0
    for t in range(T - 1, -1, -1):
        gamma = grad_H[t] + delta @ W_hh.T
        delta = gamma * (1 - H[t] ** 2)
        previous = H[t - 1] if t > 0 else H_0
        dW_xh += X[t].T @ delta
        dW_hh += previous.T @ delta
        db += delta.sum(axis=0)
        dX[t] = delta @ W_xh.T
    return dW_xh, dW_hh, db, dX, delta @ W_hh.T


def cross_entropy(logits, target, mask=None):
    n = len(target)
    if mask is None:
        mask = np.ones(n)
    Z = mask.sum()
    shifted = logits - logits.max(axis=1, keepdims=True)
    logsumexp = np.log(np.exp(shifted).sum(axis=1))
    losses = logsumexp - shifted[np.arange(n), target]
    P = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    Y = np.zeros_like(P)
    Y[np.arange(n), target] = 1
    return (mask * losses).sum() / Z, mask[:, None] * (P - Y) / Z


def clip(gradients, max_norm):
    norm = np.sqrt(sum((g**2).sum() for g in gradients))
    if norm <= max_norm:
        return gradients
    return [g * max_norm / norm for g in gradients]


def confusion_matrix(target, preds, num_classes):
    C = np.zeros((num_classes, num_classes), dtype=int)
    for i, j in zip(target, preds, strict=True):
        C[i, j] += 1
    return C


def classification_metrics(batches, num_classes):
    C = np.zeros((num_classes, num_classes))
    for target, preds in batches:
        C += confusion_matrix(target, preds, num_classes)
    accuracy = np.trace(C) / C.sum()
    precision, recall, f1 = [], [], []
    for c in range(num_classes):
        tp = C[c, c]
        p = tp / C[:, c].sum() if C[:, c].sum() > 0 else 0.0
        r = tp / C[c, :].sum() if C[c, :].sum() > 0 else 0.0
        precision.append(p)
        recall.append(r)
        f1.append(2 * p * r / (p + r) if p + r > 0 else 0.0)
    return accuracy, np.mean(precision), np.mean(recall), np.mean(f1)
