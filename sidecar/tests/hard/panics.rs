//! A connection whose story panics: what its agent, its record and everyone else see of that.

use std::{io, os::fd::AsFd, pin::pin};

use chaperone_crds::record::{EventKind, Outcome};
use chaperone_sidecar::connection::{begin, guard};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::setup::Setup;

const SECRET: &str = "a byte of the traffic";

/// An agent's socket, and the sidecar's end of it.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (agent, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (agent.unwrap(), accepted.unwrap().0)
}

#[tokio::test]
async fn a_panic_resets_its_connection_is_recorded_and_disturbs_no_other() {
    let (setup, _) = Setup::new("", "", "");
    let link = || begin(setup.shared.clone(), "198.51.100.7:443".parse().unwrap()).unwrap();
    let (mut doomed, doomed_end) = pair().await;
    let (mut other, mut other_end) = pair().await;
    let (doomed_link, other_link) = (link(), link());

    let socket = doomed_end.as_fd().try_clone_to_owned().ok();
    let doomed_story = pin!(async move {
        let mut stream = doomed_end;
        let answer = "HTTP/1.0 200 OK\r\n\r\nhalf";
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.read_u8().await.unwrap();
        panic!("{SECRET}");
    });
    let other_story = pin!(async move {
        let byte = other_end.read_u8().await.unwrap();
        other_end.write_u8(byte).await.unwrap();
    });
    let panicking = guard(&doomed_link, socket, doomed_story);
    let going_on = guard(&other_link, None, other_story);
    let agents = async {
        let mut half = [0; 23];
        doomed.read_exact(&mut half).await.unwrap();
        doomed.write_u8(b'x').await.unwrap();
        let end = doomed.read(&mut [0; 1]).await;
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        other.write_u8(b'y').await.unwrap();
        assert_eq!(other.read_u8().await.unwrap(), b'y');
    };
    tokio::join!(panicking, going_on, agents);

    assert_eq!(setup.shared.metrics.panics.get(), 1);
    drop((doomed_link, other_link));
    let records = setup.records().await;
    let of_it: Vec<_> = records
        .iter()
        .filter(|record| record.event.kind == EventKind::Connection)
        .collect();
    assert_eq!(of_it.len(), 1);
    let decision = of_it[0].event.decision.as_ref().unwrap();
    assert_eq!(
        (decision.action, decision.reason.as_str()),
        (Outcome::Deny, "internal-error")
    );
    assert!(!format!("{:?}", of_it[0]).contains(SECRET));
}
