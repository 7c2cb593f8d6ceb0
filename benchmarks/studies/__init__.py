"""Studies of the backbone itself: resize ablation, representations across grids, cheaper training, distillation."""
