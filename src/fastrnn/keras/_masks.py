# SPDX-License-Identifier: BSD-3-Clause
"""Masks in a functional model of Keras 3, which has operations that compute them.

A model that has an Embedding with mask_zero, or a Masking, also has the operations that
compute the mask (NotEqual, and for a Masking Any of that), and passes the mask to every
layer that takes one. fastrnn's Embedding and Masking compute the mask themselves, and a
model hands it on, so the operations can be left out if the masks are those that fastrnn
would hand on.
"""


def leave_out(who, entries, calls):
    """Remove the operations that only compute masks.

    Parameters
    ----------
    who : str
        The caller and the file, for errors.
    entries : dict of str to dict
        The configurations of layers, by their names.
    calls : dict of (str, int) to (Call, list of Tensor)
        The calls, by layer and number, and their masks.

    Raises
    ------
    ValueError
        If a layer is given a mask that fastrnn would not hand on.
    """
    makers = {mask.layer for _, masks in calls.values() for mask in masks}
    for name in sorted(makers):
        if name in entries and entries[name]["class_name"] == "Any":
            makers.update(one.layer for one in calls[name, 0][0].sources)
    same_input = _layers_by_input(entries, calls)
    before = {}
    for (name, number), (_, masks) in calls.items():
        for mask in masks:
            origin = _origin(entries, calls, same_input, mask.layer)
            found = _mask_before(entries, calls, (name, number), before)
            if origin is None or found != origin:
                raise ValueError(
                    f"{who}: layer {name!r}: mask must be that of an Embedding with "
                    f"mask_zero or of a Masking before it, got that of {mask.layer!r}"
                )
    for name in makers:
        calls.pop((name, 0), None)
        entries.pop(name, None)


def _layers_by_input(entries, calls):
    """Names of the layers that mask, by what their first call is given."""
    found = {}
    for name, entry in entries.items():
        if entry["class_name"] in ("Embedding", "Masking") and (name, 0) in calls:
            sources = tuple(calls[name, 0][0].sources)
            found.setdefault((entry["class_name"], sources), []).append(name)
    return found


def _origin(entries, calls, same_input, maker):
    """The layer whose mask an operation computes; None if it is no layer's mask.

    It is the Embedding or Masking that has the same input as the operation and masks
    the same value.
    """
    entry, kind = entries[maker], "Embedding"
    if entry["class_name"] == "Any":
        config = entry["config"]
        if config.get("axis") not in (-1, [-1]) or config.get("keepdims"):
            return None
        ((maker, *_),) = calls[maker, 0][0].sources
        kind, entry = "Masking", entries[maker]
    if entry["class_name"] != "NotEqual":
        return None
    value = entry["inbound_nodes"][0]["args"][1]
    for name in same_input.get((kind, tuple(calls[maker, 0][0].sources)), ()):
        config = entries[name]["config"]
        own = config.get("mask_value", 0 if config.get("mask_zero") else None)
        if own == value:
            return name
    return None


def _mask_before(entries, calls, key, known):
    """The layer whose mask is handed on to a call: the last one before it that masks.

    Parameters
    ----------
    key : tuple of (str, int)
        The call: layer and number.
    known : dict
        What was found for other calls: a model's calls are gone through once.
    """
    way = []
    found = None
    while key in calls and key not in known:
        way.append(key)
        sources = calls[key][0].sources
        if not sources:
            break
        name = sources[0].layer
        entry = entries.get(name)
        if entry is None:
            break
        if entry["class_name"] == "Masking" or entry["config"].get("mask_zero"):
            found = name
            break
        key = name, sources[0].call
    else:
        found = known.get(key)
    for one in way:
        known[one] = found
    return found
