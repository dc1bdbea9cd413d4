//! The server over real HTTP, with a service that echoes.

mod api;
mod client;
mod echo;
mod life;
mod openai;
