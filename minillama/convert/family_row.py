"""A row of the converter's table: everything that is special about one architecture."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gguf.constants import GGUFValueType

from minillama.convert.folder.folder_config import FolderConfig
from minillama.convert.vocab.entries import Entries
from minillama.convert.vocab.family_vocabularies import byte_pair_tokenizer
from minillama.convert.weights.lazy_weight import LazyWeight

Weights = list[LazyWeight]
WeightChange = Callable[[LazyWeight, FolderConfig], LazyWeight | Weights]
Vocabulary = Callable[[FolderConfig, str | None], Entries]


@dataclass(frozen=True)
class Key:
    """A metadata key: its name after the architecture, its type, and its value.

    A value of None leaves the key out."""

    name: str
    type: GGUFValueType
    value: Callable[[FolderConfig], object]


def _keep(config: FolderConfig) -> FolderConfig:
    return config


def _same_name(name: str, config: FolderConfig) -> str | None:
    return name


def _always(config: FolderConfig) -> bool:
    return True


def _none(config: FolderConfig) -> Weights:
    return []


@dataclass(frozen=True)
class Family:
    """The conversion of the folders of some classes of transformers.

    name: `general.architecture`. classes: names in config.json's `architectures`. keys: metadata, in the file's order.
    names: paths inside a layer whose GGUF name differs from the common table. name_of: a function of the checkpoint's
    names, which gives None for a tensor to drop. changes: (regular expression, function) for weights, in order.
    experts: projections of experts that are stored one by one. adjust: settings that follow from others, such as the
    number of layers. extra: tensors that no checkpoint has. vocabulary: the tokenizer; the text names a pre-tokenizer.
    when: a condition, for classes with several rows.
    """

    name: str
    classes: tuple[str, ...]
    keys: tuple[Key, ...]
    names: Mapping[str, str] = field(default_factory=dict)
    name_of: Callable[[str, FolderConfig], str | None] = _same_name
    changes: tuple[tuple[str, WeightChange], ...] = ()
    experts: tuple[str, ...] = ()
    adjust: Callable[[FolderConfig], FolderConfig] = _keep
    extra: Callable[[FolderConfig], Weights] = _none
    vocabulary: Vocabulary = byte_pair_tokenizer
    when: Callable[[FolderConfig], bool] = _always


Settings = str | Callable[[FolderConfig], object]


def integer(name: str, *settings: Settings) -> Key:
    """A key with a whole number or a list of them.

    It is the first setting that is there, or the result of a function."""
    return Key(name, GGUFValueType.UINT32, _reader(settings))


def number(name: str, *settings: Settings) -> Key:
    """A key with a number, stored as float32."""
    return Key(name, GGUFValueType.FLOAT32, _reader(settings))


def flag(name: str, *settings: Settings) -> Key:
    """A key with a boolean."""
    return Key(name, GGUFValueType.BOOL, _reader(settings))


def word(name: str, *settings: Settings) -> Key:
    """A key with a text."""
    return Key(name, GGUFValueType.STRING, _reader(settings))


def per_layer(name: str, *settings: Settings) -> Key:
    """A key with a list."""
    return Key(name, GGUFValueType.ARRAY, _reader(settings))


def _reader(settings: tuple[Settings, ...]) -> Callable[[FolderConfig], object]:
    if len(settings) == 1 and callable(settings[0]):
        return settings[0]
    names = [setting for setting in settings if isinstance(setting, str)]
    return lambda config: config.find(*names)
