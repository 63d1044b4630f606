"""Arrays with named dimensions as a netCDF-4 group, by h5py alone: a dimension of netCDF is a dimension scale of HDF5.

xarray writes the same and takes several times as long, which was most of the time of a small study.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import h5py
import numpy as np

from analysis.results import Array

Variables: TypeAlias = Mapping[str, tuple[tuple[str, ...], Array, Mapping[str, Any]]]
"""By name: the dimensions, the values and the attributes."""

NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable."
"""What netCDF calls the scale of a dimension that has no variable of its name, with the size behind it."""


def write(group: h5py.Group, arrays: Variables, labels: Variables, attributes: Mapping[str, Any]) -> None:
    """Fills an empty group. Labels are coordinates: whoever opens the group finds them along the arrays' dimensions.

    As netCDF and xarray agree on it: truth values are integers with the attribute `dtype = "bool"`, texts are UTF-8 of
    any length, NaN is what was never written, `coordinates` names labels. A variable with the name of a dimension has
    this dimension alone.
    """
    group.attrs.update(attributes)
    every = {**arrays, **labels}
    sizes = {dim: size for dims, values, _ in every.values() for dim, size in zip(dims, values.shape, strict=True)}
    made = {name: _variable(group, name, values, words) for name, (_, values, words) in every.items()}
    scales = {
        dim: made[dim] if dim in made else group.create_dataset(dim, (size,), ">f4") for dim, size in sizes.items()
    }
    for dim, scale in scales.items():
        scale.make_scale(dim if dim in made else f"{NO_VARIABLE}{sizes[dim]:10}")
    for name, (dims, _, _) in every.items():
        for axis, dim in enumerate(dims):
            if dim != name:
                made[name].dims[axis].attach_scale(scales[dim])
    for name, (dims, _, _) in arrays.items():
        along = [label for label, (its, _, _) in labels.items() if label not in sizes and its[0] in dims]
        if along:
            made[name].attrs["coordinates"] = " ".join(along)


def _variable(group: h5py.Group, name: str, values: Array, attributes: Mapping[str, Any]) -> h5py.Dataset:
    if values.dtype.kind == "O":
        made = group.create_dataset(name, data=values, dtype=h5py.string_dtype())
    elif values.dtype.kind == "f":
        made = group.create_dataset(name, data=values, fillvalue=np.nan)
        made.attrs["_FillValue"] = np.array([np.nan], values.dtype)
    else:
        made = group.create_dataset(name, data=values.astype(np.int8) if values.dtype == bool else values)
    made.attrs.update({**attributes, **({"dtype": "bool"} if values.dtype == bool else {})})
    return made
