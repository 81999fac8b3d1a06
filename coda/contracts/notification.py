"""What the operator's receiver is told of a batch: the body of a notification."""

from typing import Literal

from pydantic import AwareDatetime, Field

from coda.contracts.base import Contract, Digest, Part, Slug

NotificationKind = Literal["refused", "held", "failed", "drift", "test"]


class NotificationLinks(Part):
    """Where to look: addresses where a public base address is configured, else places in the platform bucket."""

    report: str = Field(default="", description="Page about the batch; empty where there is none.")
    site: str = Field(default="", description="Page about the source, among those the trigger builds.")


class Notification(Contract):
    """A batch version was refused, is held or failed, or a drift began with it."""

    id: str = Field(description="The same for every delivery of this notification: source/batch/version/number-kind.")
    kind: NotificationKind
    source: Slug
    batch: Slug
    manifest_digest: Digest
    state: str = Field(description="How the batch version ended, as the ledger calls it.")
    reason: str = Field(description="Why, in plain words on one line.")
    what_to_do: str = Field(description="What a person does now, with the command to type.")
    links: NotificationLinks
    at: AwareDatetime = Field(description="When the batch version ended.")
    text: str = Field(description="All of it as text, for chats that read this field (Slack, Mattermost).")
