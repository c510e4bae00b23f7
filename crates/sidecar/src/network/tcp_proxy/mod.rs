pub mod stats;
pub struct Dialled;
impl Dialled {
    pub async fn first_byte(&mut self) {
        std::future::pending().await
    }
}
pub async fn dial(
    _: &std::rc::Rc<crate::runtime::worker::Worker>,
    _: &std::sync::Arc<crate::config::tcp_proxy::TcpProxy>,
    _: std::net::SocketAddr,
) -> Result<Dialled, ()> {
    Err(())
}
pub async fn serve(
    _: &std::rc::Rc<crate::runtime::worker::Worker>,
    _: std::rc::Rc<crate::listener::connection::Connection>,
    _: std::sync::Arc<crate::config::tcp_proxy::TcpProxy>,
    _: crate::tls::stream::Stream,
    _: Option<Dialled>,
) {
}
