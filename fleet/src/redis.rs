//! A Redis as a child process, and the little of its protocol that tests need.

use std::{
    fmt, fs,
    io::{self, BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{Error, Process, Result, RunDir, free_port, wait};

const BOUND: Duration = Duration::from_secs(10);
const STARTS: u32 = 3;

/// A running Redis that keeps nothing on disk, stopped when this is dropped. It listens on a free port of
/// 127.0.0.1 and on a Unix socket.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    program: PathBuf,
    args: Vec<String>,
    addr: SocketAddr,
    socket: PathBuf,
    run: RunDir,
}

/// What Redis answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Nothing is there.
    Nil,
    /// A number.
    Integer(i64),
    /// A text; bytes that are not UTF-8 are replaced.
    Text(String),
    /// Several replies.
    List(Vec<Reply>),
}

impl Redis {
    /// Starts it with further arguments, such as `["--maxmemory", "4mb"]`, and waits until it answers.
    pub fn start(program: &Path, run: &RunDir, args: &[&str]) -> Result<Self> {
        Self::start_at(program, run, args, free_port)
    }

    /// Likewise, on a port of which more is asked than that nobody listens on it.
    pub(crate) fn start_at(
        program: &Path,
        run: &RunDir,
        args: &[&str],
        port: fn() -> Result<u16>,
    ) -> Result<Self> {
        let name = run.name("redis");
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let mut start = 1;
        loop {
            let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port()?));
            let socket = run.socket(&name);
            let process = spawn(program, &name, addr, &socket, &args, run)?;
            let (program, args, run) = (program.to_owned(), args.clone(), run.clone());
            let redis = Self { process, program, args, addr, socket, run };
            match redis.wait_until_ready() {
                Err(error) if error.is_address_in_use() && start < STARTS => start += 1,
                outcome => return outcome.map(|()| redis),
            }
        }
    }

    /// What `redis-server --version` says behind `v=`: `7.0.15`.
    pub fn version(program: &Path) -> Result<String> {
        let output = Command::new(program).arg("--version").output();
        let output = output.map_err(Error::io(format!("run {}", program.display())))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let number = text.split_whitespace().find_map(|word| word.strip_prefix("v=")).map(str::to_owned);
        number.ok_or_else(|| Error::Answer { from: program.display().to_string(), detail: text })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The Unix socket that it listens on.
    #[must_use]
    pub fn unix_socket(&self) -> &Path {
        &self.socket
    }

    /// Its URL, such as `redis://127.0.0.1:6379`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}", self.addr)
    }

    /// The process, for its id, signals and logs.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Ends it if it still runs and starts it again, empty, on the same addresses.
    pub fn restart(&mut self) -> Result<()> {
        self.process.stop();
        let name = self.process.name().to_owned();
        self.process = spawn(&self.program, &name, self.addr, &self.socket, &self.args, &self.run)?;
        self.wait_until_ready()
    }

    /// Runs one command on a connection of its own; an error that Redis answers is an error.
    pub fn command(&self, words: &[&str]) -> Result<Reply> {
        ask(self.addr, words)
    }

    fn wait_until_ready(&self) -> Result<()> {
        wait::try_eventually(BOUND, &format!("{} to answer PING", self.process.name()), || {
            self.process.check_running()?;
            // Until it is up it refuses connections, and while it loads it answers an error.
            Ok(self.command(&["PING"]).ok().filter(|reply| *reply == Reply::Text("PONG".into())).map(|_| ()))
        })
    }
}

/// Runs one command on a connection of its own.
pub(crate) fn ask(addr: SocketAddr, words: &[&str]) -> Result<Reply> {
    let outcome = ask_io(addr, words).map_err(Error::io(format!("ask redis://{addr} {words:?}")))?;
    outcome.map_err(|detail| Error::Answer { from: format!("redis://{addr} to {words:?}"), detail })
}

fn ask_io(addr: SocketAddr, words: &[&str]) -> io::Result<Result<Reply, String>> {
    let mut stream = TcpStream::connect_timeout(&addr, BOUND)?;
    stream.set_read_timeout(Some(BOUND))?;
    stream.set_write_timeout(Some(BOUND))?;
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(request.as_bytes())?;
    read_reply(&mut BufReader::new(stream))
}

fn spawn(
    program: &Path,
    name: &str,
    addr: SocketAddr,
    socket: &Path,
    args: &[String],
    run: &RunDir,
) -> Result<Process> {
    let dir = run.path().join(format!("{name}.d"));
    fs::create_dir_all(&dir).map_err(Error::io(format!("make {}", dir.display())))?;
    let mut command = Command::new(program);
    command.arg("--bind").arg(addr.ip().to_string()).arg("--port").arg(addr.port().to_string());
    command.arg("--unixsocket").arg(socket).arg("--dir").arg(dir);
    command.args(["--save", "", "--appendonly", "no"]).args(args);
    Process::start(name, command, run.path())
}

/// Reads one reply of RESP2; the inner error is one that Redis answered.
fn read_reply(input: &mut impl BufRead) -> io::Result<Result<Reply, String>> {
    let mut line = String::new();
    input.read_line(&mut line)?;
    let line = line.trim_end();
    let strange = || io::Error::new(io::ErrorKind::InvalidData, format!("not understood: {line:?}"));
    let Some((kind, rest)) = line.split_at_checked(1) else { return Err(strange()) };
    let number = || rest.parse::<i64>().map_err(|_| strange());
    Ok(Ok(match kind {
        "+" => Reply::Text(rest.to_owned()),
        "-" => return Ok(Err(rest.to_owned())),
        ":" => Reply::Integer(number()?),
        "$" => match usize::try_from(number()?) {
            Err(_) => Reply::Nil,
            Ok(length) => {
                let mut bytes = vec![0; length + 2];
                input.read_exact(&mut bytes)?;
                Reply::Text(String::from_utf8_lossy(&bytes[..length]).into_owned())
            }
        },
        "*" => match usize::try_from(number()?) {
            Err(_) => Reply::Nil,
            Ok(count) => {
                let mut replies = Vec::new();
                for _ in 0..count {
                    // An error within a list is told as text, so that its neighbours can be read.
                    replies.push(read_reply(input)?.unwrap_or_else(Reply::Text));
                }
                Reply::List(replies)
            }
        },
        _ => return Err(strange()),
    }))
}

/// One line a text or a number; nothing for nil.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nil => Ok(()),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
            Self::List(replies) => replies.iter().try_for_each(|reply| writeln!(f, "{reply}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read() {
        let mut input: &[u8] = b"*4\r\n:-3\r\n$2\r\nab\r\n$-1\r\n+OK\r\n-ERR no\r\n";
        let list = read_reply(&mut input).unwrap().unwrap();
        let want = [Reply::Integer(-3), Reply::Text("ab".into()), Reply::Nil, Reply::Text("OK".into())];
        assert_eq!(list, Reply::List(want.to_vec()));
        assert_eq!(list.to_string(), "-3\nab\n\nOK\n");
        assert_eq!(read_reply(&mut input).unwrap(), Err("ERR no".to_owned()));
        assert!(read_reply(&mut input).is_err());
    }

    #[test]
    fn a_redis_starts_forgets_and_starts_again() {
        let run = RunDir::new().unwrap();
        let programs = crate::Programs::from_env();
        let mut redis = Redis::start(programs.redis_server().unwrap(), &run, &[]).unwrap();
        redis.command(&["SET", "a", "1"]).unwrap();
        assert_eq!(redis.command(&["GET", "a"]).unwrap(), Reply::Text("1".into()));
        assert!(redis.command(&["NONSENSE"]).is_err());
        redis.process().kill();
        assert!(redis.command(&["PING"]).is_err());
        redis.restart().unwrap();
        assert_eq!(redis.command(&["GET", "a"]).unwrap(), Reply::Nil);
    }
}
