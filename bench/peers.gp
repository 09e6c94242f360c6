# peers.gp BARS OUT.svg TITLE: tokens/s of potqat and of PyTorch, its better variant = 1.
set terminal svg size 900,420 font "sans-serif,13" background rgb "white"
set output ARG2
set title "Training, tokens/s; the better of PyTorch's two is 1. ".ARG3
set datafile missing "?"
set style data histograms
set style histogram clustered gap 1
set style fill solid
set grid ytics lc rgb "#dddddd"
set border 3
set tics nomirror
set key below horizontal center
set yrange [0:*]
set offsets 0, 0, graph 0.06, 0
set xtics rotate by -30 scale 0
plot ARG1 using 2:xtic(1) title "potqat" lc rgb "#1f77b4", \
     "" using 3 title "PyTorch eager" lc rgb "#c7c7c7", \
     "" using 4 title "PyTorch compiled" lc rgb "#7f7f7f", \
     "" using ($0 - 0.25):2:(sprintf("%.2f", $2)) with labels offset 0, 0.6 notitle
