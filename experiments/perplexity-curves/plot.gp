# plot.gp RESULTS.csv FOLDER: what rounding and training cost, against bits a weight.
set datafile separator ","
set terminal svg size 820,420 font "sans-serif,13" background rgb "white"
set logscale xy
set grid ytics lc rgb "#dddddd"
set border 3
set tics nomirror
set key outside right top
set xrange [1.9:7]
set ylabel "nats a token above fp32"
set xtics (2, 3, 4, 5, 6)
set xlabel "bits a weight, scales included"
shown = "pot:tensor pot:row pot:group32 apot:row uniform:row zero-free:row"
cell(k, c) = (strcol(1).":".strcol(2) eq k) ? column(c) : 1/0
set output ARG2."/ptq.svg"
set title "Rounded after training: gap to the parent, mean of three"
plot for [k in shown] ARG1 skip 1 using (cell(k, 4)):(cell(k, 6)) with linespoints pt 7 ps 0.6 title k
set output ARG2."/qat.svg"
set title "Trained quantization-aware: gap to fp32 trained as long, one parent"
unset logscale y
set yrange [0:0.06]
plot for [k in shown] ARG1 skip 1 using (cell(k, 4)):(strcol(9) eq "" ? 1/0 : cell(k, 9)) \
    with points pt 7 ps 1 title k
