//! Deliberate bugs, to prove that the tests find them: `scripts/bugs`.
//!
//! They exist only in builds with the feature `lab`, which no program is shipped with. There, the variable
//! `KVDB_BUG` names the one that is active. Without the feature [`has`] is a constant, and the code of the bugs is gone.

macro_rules! bugs {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A deliberate bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug {
            $($(#[$doc])* $variant,)*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name in `KVDB_BUG` and in `tests/bugs.txt`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

bugs! {
    /// A blob's data and length are not synced before it gets its name.
    BlobNotSynced = "blob-not-synced",
    /// The directory is not synced after a blob was renamed into it.
    NameNotSynced = "name-not-synced",
    /// A new directory of blobs is not synced into the one above.
    DirectoryNotSynced = "directory-not-synced",
    /// The index answers when its journal is with the operating system.
    IndexNotSynced = "index-not-synced",
    /// Removals are refused where room is short.
    RemovalNeedsRoom = "removal-needs-room",
    /// What is read from the disk is not checked.
    ReadNotChecked = "read-not-checked",
    /// What is in the page cache is sent although it was never checked.
    ResidentNotChecked = "resident-not-checked",
    /// A range brings one byte too few.
    RangeOffByOne = "range-off-by-one",
    /// Any ticket may be started at any time.
    ExpiredTicketAccepted = "expired-ticket-accepted",
    /// A ticket's signature is not looked at.
    ForgedTicketAccepted = "forged-ticket-accepted",
    /// A ticket may be used again.
    UsedTicketAccepted = "used-ticket-accepted",
    /// The first volume does not wait for what the others say.
    ReplicaNotAwaited = "replica-not-awaited",
    /// Lengths and hashes of the copies are not compared.
    CopiesNotCompared = "copies-not-compared",
    /// A digest that a client gave is not compared.
    DigestNotCompared = "digest-not-compared",
    /// A volume drops what it holds as prepared without asking.
    DroppedUnasked = "dropped-unasked",
    /// A deleted key leaves no tombstone.
    NoTombstone = "no-tombstone",
    /// A removal that comes late takes a copy that was fetched since.
    LateRemovalObeyed = "late-removal-obeyed",
    /// The master does not hear of bad copies.
    BadCopyNotTold = "bad-copy-not-told",
    /// The catalog's journal is not synced after a batch.
    CatalogNotSynced = "catalog-not-synced",
    /// Commits are answered before their batch is written.
    AnsweredBeforeDurable = "answered-before-durable",
    /// Readers see a batch before it is durable.
    UndurableRead = "undurable-read",
    /// Whether a key exists is not looked at when it is created.
    CreateNotChecked = "create-not-checked",
    /// If-Match and If-None-Match are not looked at when a write is committed.
    ConditionNotChecked = "condition-not-checked",
    /// A commit may come at any time.
    LateCommitAccepted = "late-commit-accepted",
    /// Copies of a replaced or deleted version are not removed.
    OldCopiesKept = "old-copies-kept",
    /// A refused commit is not remembered.
    RefusalForgotten = "refusal-forgotten",
    /// A version that may still be committed is told to be dropped.
    PendingDropped = "pending-dropped",
    /// A version's volumes are changed whatever the record says by now.
    ReplicasSetBlindly = "replicas-set-blindly",
    /// A volume becomes a replica again while its earlier copy is still to be removed.
    ReplicaBeforeRemoval = "replica-before-removal",
    /// A record names a new replica before it has the value.
    NamedBeforeCopied = "named-before-copied",
    /// Copies are made from bad copies.
    CopiedFromBad = "copied-from-bad",
    /// What the catalog's journal has and its database has not is not taken over at the start.
    JournalNotRead = "journal-not-read",
    /// The keys of a batch become durable one after the other.
    BatchPiecemeal = "batch-piecemeal",
    /// What a batch changed before one of its keys was refused stays.
    BatchNotTakenBack = "batch-not-taken-back",
    /// A batch's preconditions are not looked at when it is committed.
    BatchConditionNotChecked = "batch-condition-not-checked",
    /// A batch that was done is done again when it is sent again.
    BatchForgotten = "batch-forgotten",
    /// A batch that was refused may be done when it is sent again.
    BatchRefusalForgotten = "batch-refusal-forgotten",
    /// Volumes do not hear that a batch was committed.
    BatchNotKept = "batch-not-kept",
    /// A batch is not held to quotas.
    BatchQuotaNotJudged = "batch-quota-not-judged",
    /// The bytes of a value that was replaced count against a quota for ever.
    ReplacedStillCounts = "replaced-still-counts",
    /// Commits that are decided together are each judged as if the others were not there.
    QuotaPlaceTwice = "quota-place-twice",
    /// Values are served after their time, until they are removed.
    ExpiredServed = "expired-served",
    /// A value whose time is over is in the way of one that is to be created, until it is removed.
    ExpiredExists = "expired-exists",
    /// A rebuild forgets when values expire.
    ExpiryNotRebuilt = "expiry-not-rebuilt",
    /// The master's clock goes back with the machine's at a restart.
    ClockGoesBack = "clock-goes-back",
    /// A rebuild does not heed deletes.
    RebuildIgnoresDeletes = "rebuild-ignores-deletes",
    /// A volume that says nothing counts as up.
    SilentVolumeUp = "silent-volume-up",
    /// What is put into a transaction is committed at once.
    StagedSeen = "staged-seen",
    /// A value in an open transaction is told to be dropped when its ticket's time is over.
    StagedDropped = "staged-dropped",
    /// Copies of what a transaction that was given up or expired holds are not removed.
    StagedKept = "staged-kept",
}

/// Whether this bug is active.
#[cfg(feature = "lab")]
pub fn has(bug: Bug) -> bool {
    active() == Some(bug)
}

/// The bug that is active.
#[cfg(feature = "lab")]
pub fn active() -> Option<Bug> {
    static ACTIVE: std::sync::OnceLock<Option<Bug>> = std::sync::OnceLock::new();
    *ACTIVE.get_or_init(|| {
        let name = std::env::var("KVDB_BUG").ok()?;
        Bug::ALL.iter().copied().find(|b| b.name() == name)
    })
}

/// The bug that is active: none, in a build without the feature `lab`.
#[cfg(not(feature = "lab"))]
#[inline]
pub const fn active() -> Option<Bug> {
    None
}

/// Whether this bug is active: never, in a build without the feature `lab`.
#[cfg(not(feature = "lab"))]
#[inline]
pub const fn has(_bug: Bug) -> bool {
    false
}
