//! A link with a delay and a bandwidth: what `tc netem` does, where the kernel has it.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use clap::Args;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
};

/// Size of a read.
const PIECE: usize = 16 << 10;
/// Pieces between the two ends: the buffers of a TCP connection, 4 MiB.
const BUFFERED: usize = 256;

#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Link {
    /// Address that is connected to.
    #[arg(long)]
    target: SocketAddr,
    /// Delay of a byte in each direction, in milliseconds: half of the round-trip time.
    #[arg(long)]
    delay_ms: u64,
    /// Bandwidth of each direction, in megabytes per second.
    #[arg(long)]
    mb_per_s: u32,
}

/// Relays connections until the process is killed. Prints the address.
///
/// # Errors
///
/// If no address can be bound.
pub(crate) fn serve(link: Link) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen")?;
        println!("{}", listener.local_addr()?);
        loop {
            let (near, _) = listener.accept().await?;
            tokio::spawn(async move {
                if let Err(error) = relay(near, link).await {
                    eprintln!("{error}");
                }
            });
        }
    })
}

async fn relay(near: TcpStream, link: Link) -> io::Result<()> {
    let far = TcpStream::connect(link.target).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    tokio::try_join!(direction(near_read, far_write, link), direction(far_read, near_write, link))?;
    Ok(())
}

/// Passes one direction on. Each piece leaves when the link has transmitted it, and arrives a delay later.
async fn direction(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, link: Link) -> io::Result<()> {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Bytes)>(BUFFERED);
    let delay = Duration::from_millis(link.delay_ms);
    let bytes_per_s = f64::from(link.mb_per_s) * 1e6;
    let reading = async move {
        let mut free_at = Instant::now();
        loop {
            let mut piece = vec![0; PIECE];
            let count = from.read(&mut piece).await?;
            if count == 0 {
                return Ok(());
            }
            piece.truncate(count);
            free_at = free_at.max(Instant::now()) + Duration::from_secs_f64(count as f64 / bytes_per_s);
            if sender.send((free_at + delay, piece.into())).await.is_err() {
                return Ok(());
            }
        }
    };
    let writing = async move {
        while let Some((due, piece)) = receiver.recv().await {
            tokio::time::sleep_until(due.into()).await;
            to.write_all(&piece).await?;
        }
        to.shutdown().await
    };
    tokio::try_join!(reading, writing)?;
    Ok(())
}
