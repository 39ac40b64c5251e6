"""For the ResNet backbones, which are not built here."""


class IntermediateLayerGetter:
    pass
