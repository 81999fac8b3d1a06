"""What self-supervised training may see of a field: the columns of the field index, by a list of what may be there."""

from dataclasses import replace

import pytest

from coda.adaptation.coda import adapt_extractor
from coda.adaptation.pairing_policy import PairingPolicy
from coda.contracts.fields import METADATA_COLUMNS
from coda.errors import ConfigError
from coda.training.blindness import KNOWN, require_blind
from coda.training.methods.dino.state import new_state
from coda.training.methods.dino.training import train_dino
from coda.training.methods.mae.state import new_mae_state
from coda.training.methods.mae.training import train_mae

TRAINERS = {
    "dino": lambda fields, params: train_dino(fields, params, params.pretrain, state=new_state(params, seed=0), seed=0),
    "mae": lambda fields, params: train_mae(
        fields, params, params.mae.pretrain, state=new_mae_state(params, seed=0), seed=0
    ),
    "adaptation": lambda fields, params: adapt_extractor(
        new_state(params, seed=0), fields, params, PairingPolicy("oda", "none", 0.0, ""), seed=0
    ),
}


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("column", ["Metadata_moa", "pathway", "Metadata_Target", "class_id", "y", "Metadata_MOA_2"])
def test_a_column_that_the_field_index_does_not_have_is_refused_whatever_its_name(fields, tiny, trainer, column):
    told = replace(fields, table=fields.table.assign(**{column: "inhibitor"}))
    with pytest.raises(ConfigError, match="must not see more") as error:
        TRAINERS[trainer](told, tiny())
    assert repr(column) in error.value.problems[0].found


def test_what_the_field_index_holds_is_enough_and_names_no_mechanism(fields):
    require_blind(fields.table)
    assert {"image_id", *METADATA_COLUMNS.values()} == KNOWN
    assert not [name for name in KNOWN if "moa" in name.lower() or "mechanism" in name.lower()]
