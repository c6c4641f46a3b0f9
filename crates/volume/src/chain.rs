//! A value from another server: from the volume before in the chain, or from a master that relays.

use crate::commit::commit_upload;
use crate::digest::DigestCheck;
use crate::node::{Claim, Node};
use crate::put::{place, refuse_used};
use crate::upload::{Durable, Leg, Upload};
use bytes::Bytes;
use http::HeaderMap;
use kvdb_protocol::chain::Control;
use kvdb_protocol::{ErrorCode, Problem, Ticket, TicketOp};
use kvdb_server::body::Response;
use kvdb_server::duplex::{self, DuplexError, FrameReader, Item, channel};
use kvdb_server::guard::{GuardedBody, Request};
use kvdb_server::query::Query;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// `POST` of frames. The head of the answer goes out once this volume and all after it have reserved space;
/// the rest runs in a task of its own.
pub(crate) async fn receive(node: &Arc<Node>, request: Request, query: &Query) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    node.membership()?.credentials.verify(&head, node.volume(), None)?;
    let encoded = query.get_str("ticket").ok_or_else(|| bad("no ticket"))?;
    let at: usize = query.get_parsed("at")?.ok_or_else(|| bad("no place in the chain"))?;
    let len: Option<u64> = query.get_parsed("len")?;
    let hold = query.has("hold");
    let (ticket, my_place) = node.ticket(encoded)?;
    if at != my_place || !matches!(ticket.op, TicketOp::Create | TicketOp::Replace) {
        return Err(Problem::new(ErrorCode::BadTicket, "the ticket does not permit this"));
    }
    let digests = DigestCheck::from_headers(&head.headers)?;
    let claim = node.claim(ticket.version)?;
    refuse_used(node, &ticket)?;
    let place = place(node, at).await?;
    let upload =
        Upload::open(node, &ticket, encoded, Leg { at, len, hold }, HeaderMap::new()).await.map_err(|f| f.problem.at_volume(f.volume))?;

    let (to_sender, answers) = channel();
    let receiver = Receiver { node: node.clone(), ticket, encoded: encoded.to_string(), at, hold, to_sender, _claim: claim, _place: place };
    tokio::spawn(receiver.run(FrameReader::new(body), upload, digests));
    Ok(Response::new(duplex::body(answers)))
}

fn bad(what: &str) -> Problem {
    Problem::new(ErrorCode::BadRequest, format!("the chain call has {what}"))
}

struct Receiver {
    node: Arc<Node>,
    ticket: Ticket,
    encoded: String,
    at: usize,
    hold: bool,
    to_sender: mpsc::Sender<Bytes>,
    _claim: Claim,
    _place: OwnedSemaphorePermit,
}

impl Receiver {
    async fn run(self, mut frames: FrameReader<GuardedBody>, upload: Upload, digests: DigestCheck) {
        let durable = match self.value(&mut frames, upload, digests).await {
            Ok(durable) => durable,
            Err(problem) => {
                tracing::warn!(key = %self.ticket.key, version = %self.ticket.version, error = %problem, "a replica was not written");
                self.answer(Control::Failed(problem)).await;
                return;
            }
        };
        self.answer(Control::Prepared(durable.prepared)).await;
        if self.hold {
            // The master commits it with others, or not, and says so in a call of its own.
            durable.hold().await;
        } else if self.at == 0 {
            self.commit_for_relay(durable).await;
        } else {
            self.await_outcome(&mut frames, durable).await;
        }
        // The sender ends its side first, which leaves the connection fit for use again.
        drop(frames.next().await);
    }

    async fn value(&self, frames: &mut FrameReader<GuardedBody>, mut upload: Upload, mut digests: DigestCheck) -> Result<Durable, Problem> {
        loop {
            match frames.next().await.map_err(|e| broken(&e))? {
                Some(Item::Data(bytes)) => {
                    digests.update(&bytes);
                    upload.write(bytes).await?;
                }
                Some(Item::Control(Control::End(len))) if len == upload.len() => {
                    digests.finish()?;
                    return upload.finish().await;
                }
                Some(Item::Control(Control::Abort)) | None => {
                    return Err(Problem::new(ErrorCode::IncompleteBody, "the sender gave the value up"));
                }
                Some(Item::Control(_)) => return Err(broken(&DuplexError::Unexpected("frame or length"))),
            }
        }
    }

    async fn commit_for_relay(&self, durable: Durable) {
        let outcome = commit_upload(&self.node, &self.ticket, &self.encoded, durable).await;
        self.answer(outcome.map_or_else(Control::Failed, Control::Done)).await;
    }

    async fn await_outcome(&self, frames: &mut FrameReader<GuardedBody>, durable: Durable) {
        match frames.next().await {
            Ok(Some(Item::Control(Control::Commit(committed)))) => durable.committed(committed).await,
            Ok(Some(Item::Control(Control::Abort))) => {
                drop(durable.abandon(Problem::new(ErrorCode::Conflict, "not committed")).await);
            }
            other => {
                tracing::info!(key = %self.ticket.key, version = %self.ticket.version, got = ?other.map(|_| ()), "in doubt: the volume before in the chain went away");
                durable.leave_in_doubt();
            }
        }
    }

    async fn answer(&self, frame: Control) {
        // Where the sender is gone there is nobody to tell.
        drop(self.to_sender.send(frame.encode().into()).await);
    }
}

fn broken(e: &DuplexError) -> Problem {
    Problem::new(ErrorCode::IncompleteBody, format!("the value did not arrive whole: {e}"))
}
