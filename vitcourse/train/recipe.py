"""What a training run is made of, apart from the model and the data."""


def decay_groups(model, weight_decay):
    """Split the parameters for the optimizer: only matrices decay.

    Prefix tokens and position tables have two axes or more, too, but nothing is multiplied with
    them: drawn towards zero, they would lose what they say. They are known by their names: one
    part of it begins with `prefix` or `position`.
    """
    decay, keep = [], []
    for name, parameter in model.named_parameters():
        special = any(part.startswith(("prefix", "position")) for part in name.split("."))
        (keep if special or parameter.ndim < 2 else decay).append(parameter)
    return [{"params": decay, "weight_decay": weight_decay}, {"params": keep, "weight_decay": 0.0}]
