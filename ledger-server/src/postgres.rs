//! Connections to PostgreSQL by the settings that a sink has, for whoever needs one.

use std::{sync::Arc, time::Duration};

use chaperone_sinks::{ClientError, settings::Postgres};
use tokio::task::AbortHandle;
use tokio_postgres::{
    Client, Config, Error, NoTls, Socket,
    config::SslMode,
    tls::{MakeTlsConnect, TlsConnect},
};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the server may take for one statement; the server breaks it off then.
pub(crate) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(45);

/// Makes connections.
#[derive(Clone)]
pub(crate) struct Connector {
    config: Config,
    tls: Option<Arc<rustls::ClientConfig>>,
}

/// A connection, closed with this.
pub(crate) struct Connection {
    pub(crate) client: Client,
    driver: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector")
            .field("hosts", &self.config.get_hosts())
            .field("database", &self.config.get_dbname())
            .finish_non_exhaustive()
    }
}

impl Connector {
    /// Reads the settings. `version` is ours, as the server is told it.
    pub(crate) fn new(postgres: &Postgres, version: &str) -> Result<Self, ClientError> {
        let tls = match &postgres.tls {
            Some(tls) => Some(Arc::new(tls.client_config(None)?)),
            None => None,
        };
        let mut config = Config::new();
        config
            .host(&postgres.host)
            .port(postgres.port)
            .dbname(&postgres.database)
            .user(&postgres.user)
            .application_name(format!("chaperone/{version}"))
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_user_timeout(STATEMENT_TIMEOUT)
            .ssl_mode(match tls {
                Some(_) => SslMode::Require,
                None => SslMode::Disable,
            });
        if let Some(password) = &postgres.password {
            config.password(&password.0);
        }
        Ok(Self { config, tls })
    }

    /// Connects, with a bound on each statement.
    pub(crate) async fn connect(&self) -> Result<Connection, Error> {
        let connection = match &self.tls {
            Some(tls) => {
                let tls = MakeRustlsConnect::new(tls.as_ref().clone());
                self.connect_by(tls).await
            }
            None => self.connect_by(NoTls).await,
        }?;
        // Not a parameter of the connection: poolers refuse those.
        let bound = format!("SET statement_timeout = {}", STATEMENT_TIMEOUT.as_millis());
        connection.client.batch_execute(&bound).await?;
        Ok(connection)
    }

    async fn connect_by<T>(&self, tls: T) -> Result<Connection, Error>
    where
        T: MakeTlsConnect<Socket>,
        T::Stream: Send + 'static,
        T::TlsConnect: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        let (client, connection) = self.config.connect(tls).await?;
        let driver = tokio::spawn(async move {
            // The statement's own future tells its failure.
            let _ = connection.await;
        });
        let driver = driver.abort_handle();
        Ok(Connection { client, driver })
    }
}
